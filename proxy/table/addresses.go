package table

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

func clusterIPs(service *corev1.Service) []string {
	if len(service.Spec.ClusterIPs) > 0 {
		return service.Spec.ClusterIPs
	}
	return []string{service.Spec.ClusterIP}
}

// ofFamily reads the addresses of one family, each once.
func ofFamily(texts []string, ipv6 bool) []netip.Addr {
	var addresses []netip.Addr
	for _, text := range texts {
		if address, err := netip.ParseAddr(text); err == nil && address.Is6() == ipv6 && !slices.Contains(addresses, address) {
			addresses = append(addresses, address)
		}
	}
	return addresses
}

// loadBalancerIPs leaves out the address of a load balancer that proxies by
// itself (ipMode Proxy): it must be reached, not short-cut (KEP-1860).
func loadBalancerIPs(service *corev1.Service, ipv6 bool) []netip.Addr {
	if service.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	var texts []string
	for _, ingress := range service.Status.LoadBalancer.Ingress {
		if ingress.IPMode == nil || *ingress.IPMode == corev1.LoadBalancerIPModeVIP {
			texts = append(texts, ingress.IP)
		}
	}
	return ofFamily(texts, ipv6)
}

// sourceRanges are those who may use the load balancer's addresses. When the
// node may, the addresses themselves may too: they are often addresses of the
// node, and what it sends to one of its own addresses comes from that address.
func sourceRanges(node Node, service *corev1.Service, ipv6 bool, loadBalancerIPs []netip.Addr) []netip.Prefix {
	if len(loadBalancerIPs) == 0 {
		return nil
	}
	var ranges []netip.Prefix
	nodeMay := false
	for _, text := range service.Spec.LoadBalancerSourceRanges {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil || prefix.Addr().Is6() != ipv6 {
			continue
		}
		ranges = append(ranges, prefix.Masked())
		nodeMay = nodeMay || slices.ContainsFunc(node.Addresses, prefix.Contains)
	}
	if nodeMay {
		for _, address := range loadBalancerIPs {
			ranges = append(ranges, netip.PrefixFrom(address, address.BitLen()))
		}
	}
	return disjoint(ranges)
}
