package table

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
)

// HealthCheck is what a load balancer asks a node for, to learn whether the
// node has endpoints of a service whose external traffic policy is Local.
type HealthCheck struct {
	Service types.NamespacedName
	// Port is the service's healthCheckNodePort.
	Port uint16
	// LocalEndpoints is how many ready endpoints of the service are on this node.
	LocalEndpoints int
}

// healthCheck returns nil for a service that needs none.
func healthCheck(node Node, service *corev1.Service, endpointSlices []*discoveryv1.EndpointSlice) *HealthCheck {
	if service.Spec.Type != corev1.ServiceTypeLoadBalancer || service.Spec.HealthCheckNodePort == 0 ||
		service.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		return nil
	}
	local := map[netip.Addr]bool{}
	for i := range service.Spec.Ports {
		for _, ipv6 := range []bool{false, true} {
			for _, c := range candidatesOf(node, &service.Spec.Ports[i], ipv6, endpointSlices) {
				if c.Local && c.ready {
					local[c.Address.Addr()] = true
				}
			}
		}
	}
	// Both families of a dual stack service are the same pods.
	families := map[bool]int{}
	for address := range local {
		families[address.Is6()]++
	}
	return &HealthCheck{
		Service: types.NamespacedName{Namespace: service.Namespace, Name: service.Name},
		Port:    uint16(service.Spec.HealthCheckNodePort), LocalEndpoints: max(families[false], families[true]),
	}
}
