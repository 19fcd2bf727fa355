package podspec

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

type quantity = resource.Quantity

// standardResources are the names without a domain that mean something anywhere in the API.
var standardResources = []corev1.ResourceName{
	corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourceStorage,
	corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage, corev1.ResourceRequestsStorage,
	corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage,
	corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices, corev1.ResourceReplicationControllers,
	corev1.ResourceSecrets, corev1.ResourceConfigMaps, corev1.ResourcePersistentVolumeClaims,
	corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers,
}

// countedResources come in whole numbers.
var countedResources = []corev1.ResourceName{
	corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices, corev1.ResourceReplicationControllers,
	corev1.ResourceSecrets, corev1.ResourceConfigMaps, corev1.ResourcePersistentVolumeClaims,
	corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers,
}

func isHugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// isNative tells Kubernetes' own resources from those of devices and operators.
func isNative(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// isExtended tells a resource that a device plugin or an operator may offer. Its name must still be
// valid when a quota puts requests. before it.
func isExtended(name corev1.ResourceName) bool {
	if isNative(name) || strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix) {
		return false
	}
	return len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+string(name))) == 0
}

// overcommitAllowed tells whether the limit of a resource may exceed what is requested of it.
func overcommitAllowed(name corev1.ResourceName) bool { return isNative(name) && !isHugePages(name) }

// resourceName checks a resource name as such and tells whether it is well formed.
func (f *findings) resourceName(name corev1.ResourceName, path *field.Path) bool {
	if messages := validation.IsQualifiedName(string(name)); len(messages) > 0 {
		f.invalidEach(path, name, messages)
		return false
	}
	standard := slices.Contains(standardResources, name) || isHugePages(name) ||
		strings.HasPrefix(string(name), corev1.ResourceRequestsHugePagesPrefix)
	if !strings.Contains(string(name), "/") && !standard {
		f.invalid(path, name, "must be a standard resource type or fully qualified")
		return false
	}
	return true
}

// containerResourceName checks that a container can ask for the resource.
func (f *findings) containerResourceName(name corev1.ResourceName, path *field.Path) {
	f.resourceName(name, path)
	if !strings.Contains(string(name), "/") {
		switch {
		case name == corev1.ResourceCPU, name == corev1.ResourceMemory, name == corev1.ResourceEphemeralStorage, isHugePages(name):
		default:
			f.invalid(path, name, "must be a standard resource for containers")
		}
		return
	}
	if !isNative(name) && !isExtended(name) {
		f.invalid(path, name, "doesn't follow extended resource name standard")
	}
}

// ValidateQuantity checks an amount of a resource: not negative, and whole where it is a count.
func ValidateQuantity(name corev1.ResourceName, amount quantity, path *field.Path) field.ErrorList {
	var f findings
	if amount.Sign() < 0 {
		f.invalid(path, amount.String(), "must be greater than or equal to 0")
	}
	if (slices.Contains(countedResources, name) || isExtended(name)) && amount.MilliValue()%1000 != 0 {
		f.invalid(path, amount, "must be an integer")
	}
	return f.list
}

// hugePagesDivide tells whether the amount is a multiple of the page size in the resource's name.
func hugePagesDivide(name corev1.ResourceName, amount quantity) bool {
	size, err := resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
	if err != nil || size.Sign() <= 0 || size.MilliValue()%1000 != 0 {
		return false
	}
	return amount.Value()%size.Value() == 0
}
