package endpointslicemirroring

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/skiff-run/skiff/control/controllers/endpoints"
)

// perSubset is how many addresses of one subset are mirrored.
const perSubset = 1000

// flaws counts addresses that are not mirrored; skipped contains invalid.
type flaws struct {
	invalid, skipped int
}

// wanted tells whether Endpoints are to be mirrored at all.
func wanted(object *corev1.Endpoints) bool {
	_, elects := object.Annotations[resourcelock.LeaderElectionRecordAnnotationKey]
	return object.Labels[discoveryv1.LabelSkipMirror] != "true" && !elects
}

// mirror returns the slices that say what the Endpoints do, by their identity.
func mirror(object *corev1.Endpoints) (map[string]*discoveryv1.EndpointSlice, flaws) {
	desired := map[string]*discoveryv1.EndpointSlice{}
	found := flaws{}
	for _, subset := range endpoints.Repack(object.Subsets) {
		ports := slicePorts(subset.Ports)
		added := 0
		add := func(addresses []corev1.EndpointAddress, ready bool) {
			for _, address := range addresses {
				if added >= perSubset {
					found.skipped++
					continue
				}
				ip, err := netip.ParseAddr(address.IP)
				if err != nil {
					found.invalid++
					found.skipped++
					continue
				}
				family := discoveryv1.AddressTypeIPv4
				if ip.Is6() && !ip.Is4In6() {
					family = discoveryv1.AddressTypeIPv6
				}
				id := identity(family, ports)
				if desired[id] == nil {
					desired[id] = empty(object, family, ports)
				}
				desired[id].Endpoints = append(desired[id].Endpoints, endpoint(address, ip, ready))
				added++
			}
		}
		add(subset.Addresses, true)
		add(subset.NotReadyAddresses, false)
	}
	return desired, found
}

func endpoint(address corev1.EndpointAddress, ip netip.Addr, ready bool) discoveryv1.Endpoint {
	one := discoveryv1.Endpoint{
		Addresses: []string{ip.Unmap().String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		TargetRef: address.TargetRef, NodeName: address.NodeName,
	}
	if address.Hostname != "" {
		one.Hostname = &address.Hostname
	}
	return one
}

func slicePorts(ports []corev1.EndpointPort) []discoveryv1.EndpointPort {
	result := []discoveryv1.EndpointPort{}
	for _, port := range ports {
		result = append(result, discoveryv1.EndpointPort{Name: &port.Name, Port: &port.Port, Protocol: &port.Protocol, AppProtocol: port.AppProtocol})
	}
	return result
}

// empty returns a slice of the Endpoints without endpoints.
func empty(object *corev1.Endpoints, family discoveryv1.AddressType, ports []discoveryv1.EndpointPort) *discoveryv1.EndpointSlice {
	prefix := object.Name + "-"
	if len(validation.NameIsDNSSubdomain(prefix, true)) > 0 {
		prefix = object.Name
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: object.Namespace, GenerateName: prefix, Labels: map[string]string{}, Annotations: map[string]string{},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(object, corev1.SchemeGroupVersion.WithKind("Endpoints"))},
		},
		AddressType: family, Ports: ports,
	}
	maps.Copy(slice.Labels, object.Labels)
	slice.Labels[discoveryv1.LabelServiceName], slice.Labels[discoveryv1.LabelManagedBy] = object.Name, ManagedBy
	maps.Copy(slice.Annotations, object.Annotations)
	delete(slice.Annotations, corev1.EndpointsLastChangeTriggerTime)
	delete(slice.Annotations, corev1.LastAppliedConfigAnnotation)
	return slice
}

// identity tells slices apart that cannot be one: of different families or ports.
func identity(family discoveryv1.AddressType, ports []discoveryv1.EndpointPort) string {
	keys := make([]string, len(ports))
	for i, port := range ports {
		keys[i] = fmt.Sprintf("%s/%s/%d/%s", value(port.Name), value(port.Protocol), value(port.Port), value(port.AppProtocol))
	}
	slices.Sort(keys)
	return string(family) + " " + strings.Join(keys, ",")
}

// value returns what pointer points to, or nothing.
func value[T any](pointer *T) T {
	if pointer == nil {
		var nothing T
		return nothing
	}
	return *pointer
}
