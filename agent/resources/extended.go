package resources

import (
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Extended says whether a resource is one that Kubernetes does not know: an
// administrator, or a device's driver, says how much of it a node has.
func Extended(name v1.ResourceName) bool {
	return strings.Contains(string(name), "/") && !strings.Contains(string(name), v1.ResourceDefaultNamespacePrefix) &&
		!strings.HasPrefix(string(name), v1.DefaultResourceRequestsPrefix)
}

// KeepExtended copies the extended resources of a list into another.
func KeepExtended(into, from v1.ResourceList) {
	for name, amount := range from {
		if Extended(name) {
			into[name] = amount.DeepCopy()
		}
	}
}
