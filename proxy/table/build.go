package table

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
)

// LabelServiceProxyName hands a service to another proxy.
const LabelServiceProxyName = "service.kubernetes.io/service-proxy-name"

// SlicesOf finds the endpoint slices of a service. Their order does not matter.
type SlicesOf func(namespace, service string) []*discoveryv1.EndpointSlice

// Build makes the table of a node. Slices belong to services by their
// kubernetes.io/service-name label.
func Build(node Node, services []*corev1.Service, slicesOf SlicesOf) *Table {
	return new(Builder).Build(node, services, slicesOf)
}

// Builder makes tables one after the other and computes anew only what belongs
// to objects that changed. Objects are told apart by their pointers, so they
// must not be changed in place. The zero value is ready; it is not safe for
// concurrent use.
type Builder struct {
	node  Node
	built map[types.NamespacedName]*built
}

// built is what one service came to.
type built struct {
	service *corev1.Service
	slices  []*discoveryv1.EndpointSlice
	ports   []*ServicePort
	health  *HealthCheck
}

// Build returns what the function Build returns.
func (b *Builder) Build(node Node, services []*corev1.Service, slicesOf SlicesOf) *Table {
	if !b.node.equal(node) {
		b.node, b.built = node, nil
	}
	next := make(map[types.NamespacedName]*built, len(services))
	order := make([]*built, 0, len(services))
	ports := 0
	for _, service := range services {
		if !concerns(service) {
			continue
		}
		endpointSlices := ours(slicesOf(service.Namespace, service.Name))
		key := types.NamespacedName{Namespace: service.Namespace, Name: service.Name}
		one := b.built[key]
		if one == nil || one.service != service || !slices.Equal(one.slices, endpointSlices) {
			one = ofService(node, service, endpointSlices)
		}
		next[key] = one
		order = append(order, one)
		ports += len(one.ports)
	}
	b.built = next
	t := &Table{NodePortRanges: node.nodePortRanges(), Ports: make([]*ServicePort, 0, ports)}
	slices.SortFunc(order, older)
	t.claim(order)
	for _, one := range order {
		if one.health != nil {
			t.HealthChecks = append(t.HealthChecks, *one.health)
		}
	}
	slices.SortFunc(t.Ports, func(a, b *ServicePort) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(t.HealthChecks, func(a, b HealthCheck) int { return cmp.Compare(a.Service.String(), b.Service.String()) })
	return t
}

// ofService builds what belongs to one service.
func ofService(node Node, service *corev1.Service, endpointSlices []*discoveryv1.EndpointSlice) *built {
	one := &built{service: service, slices: endpointSlices, health: healthCheck(node, service, endpointSlices)}
	// Validation makes names unique; backends rely on it.
	named := map[string]bool{}
	for _, text := range clusterIPs(service) {
		address, err := netip.ParseAddr(text)
		if err != nil || slices.Contains(node.Excluded, address) {
			continue
		}
		for i := range service.Spec.Ports {
			p := servicePort(node, service, &service.Spec.Ports[i], address, endpointSlices)
			if !named[p.Name] {
				named[p.Name] = true
				one.ports = append(one.ports, p)
			}
		}
	}
	return one
}

// older orders services by age: who was first keeps what two claim.
func older(a, b *built) int {
	return cmp.Or(a.service.CreationTimestamp.Compare(b.service.CreationTimestamp.Time),
		cmp.Compare(a.service.Namespace, b.service.Namespace), cmp.Compare(a.service.Name, b.service.Name))
}

// concerns says whether the service has addresses for us to serve.
func concerns(service *corev1.Service) bool {
	if _, others := service.Labels[LabelServiceProxyName]; others {
		return false
	}
	if _, headless := service.Labels[corev1.IsHeadlessService]; headless {
		return false
	}
	return service.Spec.Type != corev1.ServiceTypeExternalName &&
		service.Spec.ClusterIP != corev1.ClusterIPNone && service.Spec.ClusterIP != ""
}

// ours drops slices that are not for service proxies and orders the others.
func ours(all []*discoveryv1.EndpointSlice) []*discoveryv1.EndpointSlice {
	mine := slices.DeleteFunc(slices.Clone(all), func(slice *discoveryv1.EndpointSlice) bool {
		_, headless := slice.Labels[corev1.IsHeadlessService]
		_, others := slice.Labels[LabelServiceProxyName]
		return headless || others
	})
	slices.SortFunc(mine, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	return mine
}

func servicePort(node Node, service *corev1.Service, port *corev1.ServicePort, clusterIP netip.Addr, endpointSlices []*discoveryv1.EndpointSlice) *ServicePort {
	ipv6 := clusterIP.Is6()
	p := &ServicePort{
		Name:      portName(service, port, clusterIP),
		Service:   types.NamespacedName{Namespace: service.Namespace, Name: service.Name},
		Protocol:  cmp.Or(port.Protocol, corev1.ProtocolTCP),
		ClusterIP: clusterIP,
		Port:      uint16(port.Port),
	}
	if service.Spec.Type == corev1.ServiceTypeNodePort || service.Spec.Type == corev1.ServiceTypeLoadBalancer {
		p.NodePort = uint16(port.NodePort)
	}
	p.ExternalIPs = ofFamily(service.Spec.ExternalIPs, ipv6)
	p.LoadBalancerIPs = loadBalancerIPs(service, ipv6)
	p.SourceRanges = sourceRanges(node, service, ipv6, p.LoadBalancerIPs)
	if service.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		p.Affinity = affinityTimeout(service)
	}
	policy := service.Spec.InternalTrafficPolicy
	p.InternalLocal = policy != nil && *policy == corev1.ServiceInternalTrafficPolicyLocal
	p.ExternalLocal = p.ExternallyAccessible() && service.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	candidatesOf(node, port, ipv6, endpointSlices).choose(node, p)
	return p
}

func portName(service *corev1.Service, port *corev1.ServicePort, clusterIP netip.Addr) string {
	name := fmt.Sprintf("%s/%s:%s", service.Namespace, service.Name, port.Name)
	if clusterIP.Is6() {
		name += "/ipv6"
	}
	return name
}

// affinityTimeout is the service's own, or the API's default of three hours.
func affinityTimeout(service *corev1.Service) time.Duration {
	if config := service.Spec.SessionAffinityConfig; config != nil && config.ClientIP != nil && config.ClientIP.TimeoutSeconds != nil {
		return time.Duration(*config.ClientIP.TimeoutSeconds) * time.Second
	}
	return time.Duration(corev1.DefaultClientIPServiceAffinitySeconds) * time.Second
}
