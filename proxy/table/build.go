package table

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// LabelServiceProxyName hands a service to another proxy.
const LabelServiceProxyName = "service.kubernetes.io/service-proxy-name"

// Node is what the table must know of the machine it is built for.
type Node struct {
	Name string
	// Excluded addresses are served by somebody else on the node: cluster DNS.
	Excluded []netip.Addr
}

// Build makes the table of a node. Slices belong to services by their
// kubernetes.io/service-name label; their order does not matter.
func Build(node Node, services []*corev1.Service, slicesOf func(namespace, service string) []*discoveryv1.EndpointSlice) *Table {
	t := &Table{}
	for _, service := range services {
		if !concerns(service) {
			continue
		}
		endpointSlices := slicesOf(service.Namespace, service.Name)
		for _, text := range clusterIPs(service) {
			address, err := netip.ParseAddr(text)
			if err != nil || slices.Contains(node.Excluded, address) {
				continue
			}
			for i := range service.Spec.Ports {
				t.Ports = append(t.Ports, servicePort(node, service, &service.Spec.Ports[i], address, endpointSlices))
			}
		}
	}
	slices.SortFunc(t.Ports, func(a, b ServicePort) int { return cmp.Compare(a.Name, b.Name) })
	return t
}

// concerns says whether the service has addresses for us to serve.
func concerns(service *corev1.Service) bool {
	if _, others := service.Labels[LabelServiceProxyName]; others {
		return false
	}
	return service.Spec.Type != corev1.ServiceTypeExternalName &&
		service.Spec.ClusterIP != corev1.ClusterIPNone && service.Spec.ClusterIP != ""
}

func clusterIPs(service *corev1.Service) []string {
	if len(service.Spec.ClusterIPs) > 0 {
		return service.Spec.ClusterIPs
	}
	return []string{service.Spec.ClusterIP}
}

func servicePort(node Node, service *corev1.Service, port *corev1.ServicePort, clusterIP netip.Addr, endpointSlices []*discoveryv1.EndpointSlice) ServicePort {
	p := ServicePort{
		Name:      portName(service, port, clusterIP),
		Protocol:  cmp.Or(port.Protocol, corev1.ProtocolTCP),
		ClusterIP: clusterIP,
		Port:      uint16(port.Port),
	}
	if service.Spec.Type == corev1.ServiceTypeNodePort || service.Spec.Type == corev1.ServiceTypeLoadBalancer {
		p.NodePort = uint16(port.NodePort)
	}
	p.ExternalIPs = externalIPs(service, clusterIP.Is6())
	p.SourceRanges = sourceRanges(service, clusterIP.Is6())
	if service.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		p.Affinity = affinityTimeout(service)
	}
	candidates := endpoints(node, port, clusterIP.Is6(), endpointSlices)
	p.HasEndpoints = len(candidates.usable(false)) > 0
	internalLocal := service.Spec.InternalTrafficPolicy != nil && *service.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
	p.ExternalLocal = service.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	p.Internal = candidates.usable(internalLocal)
	p.External = candidates.usable(p.ExternalLocal)
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

// externalIPs are the external and load balancer addresses of one family. A
// load balancer that proxies by itself (ipMode Proxy) must be reached, not
// short-cut.
func externalIPs(service *corev1.Service, ipv6 bool) []netip.Addr {
	var addresses []netip.Addr
	add := func(text string) {
		if address, err := netip.ParseAddr(text); err == nil && address.Is6() == ipv6 && !slices.Contains(addresses, address) {
			addresses = append(addresses, address)
		}
	}
	for _, text := range service.Spec.ExternalIPs {
		add(text)
	}
	if service.Spec.Type == corev1.ServiceTypeLoadBalancer {
		for _, ingress := range service.Status.LoadBalancer.Ingress {
			if ingress.IPMode == nil || *ingress.IPMode == corev1.LoadBalancerIPModeVIP {
				add(ingress.IP)
			}
		}
	}
	return addresses
}

func sourceRanges(service *corev1.Service, ipv6 bool) []netip.Prefix {
	var ranges []netip.Prefix
	for _, text := range service.Spec.LoadBalancerSourceRanges {
		if prefix, err := netip.ParsePrefix(strings.TrimSpace(text)); err == nil && prefix.Addr().Is6() == ipv6 {
			ranges = append(ranges, prefix.Masked())
		}
	}
	return ranges
}
