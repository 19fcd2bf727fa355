package csrapproving

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"

	"github.com/skiff-run/skiff/control/controllers/internal/csrkind"
)

// machines knows which names and addresses are whose.
type machines struct {
	nodes    corelisters.NodeLister
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
}

// refuse says why a serving certificate must not be approved, empty for fine. A
// node reports its addresses itself, so that they are its own is not enough:
// they must be nobody else's, or a machine that was broken into could stand in
// the way of the API server.
func (m machines) refuse(r *certificatesv1.CertificateSigningRequest, request *x509.CertificateRequest) (string, error) {
	name := csrkind.NodeName(request)
	if r.Spec.Username != request.Subject.CommonName || !slices.Contains(r.Spec.Groups, "system:nodes") {
		return fmt.Sprintf("%s asks for a certificate of node %s", r.Spec.Username, name), nil
	}
	node, err := m.nodes.Get(name)
	if apierrors.IsNotFound(err) {
		return "node " + name + " does not exist yet", nil
	}
	if err != nil {
		return "", fmt.Errorf("read node: %w", err)
	}
	for _, dns := range request.DNSNames {
		if dns != name {
			return fmt.Sprintf("%s is not the node's name", dns), nil
		}
	}
	for _, ip := range request.IPAddresses {
		address, ok := netip.AddrFromSlice(ip)
		if !ok {
			return fmt.Sprintf("%s is no address", ip), nil
		}
		if address = address.Unmap(); !has(node, address) {
			return fmt.Sprintf("%s is not an address of node %s", address, name), nil
		}
		if owner, err := m.owner(name, address); owner != "" || err != nil {
			return fmt.Sprintf("%s is also %s", address, owner), err
		}
	}
	return "", nil
}

// owner names who has the address besides the node.
func (m machines) owner(name string, address netip.Addr) (string, error) {
	if address.IsLoopback() || address.IsUnspecified() || address.IsMulticast() {
		return "no machine's alone", nil
	}
	nodes, err := m.nodes.List(labels.Everything())
	if err != nil {
		return "", fmt.Errorf("list nodes: %w", err)
	}
	for _, other := range nodes {
		if other.Name != name && has(other, address) {
			return "node " + other.Name + "'s", nil
		}
	}
	services, err := m.services.List(labels.Everything())
	if err != nil {
		return "", fmt.Errorf("list services: %w", err)
	}
	for _, service := range services {
		if slices.ContainsFunc(service.Spec.ClusterIPs, func(ip string) bool { return same(ip, address) }) {
			return "service " + service.Namespace + "/" + service.Name + "'s", nil
		}
	}
	// Control machines sign their own agents' certificates: none of theirs comes here.
	servers, err := m.slices.EndpointSlices(metav1.NamespaceDefault).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: "kubernetes"}))
	if err != nil {
		return "", fmt.Errorf("list API servers: %w", err)
	}
	for _, slice := range servers {
		for _, endpoint := range slice.Endpoints {
			if slices.ContainsFunc(endpoint.Addresses, func(ip string) bool { return same(ip, address) }) {
				return "an API server's", nil
			}
		}
	}
	return "", nil
}

func has(node *corev1.Node, address netip.Addr) bool {
	return slices.ContainsFunc(node.Status.Addresses, func(a corev1.NodeAddress) bool {
		return (a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP) && same(a.Address, address)
	})
}

func same(text string, address netip.Addr) bool {
	parsed, err := netip.ParseAddr(text)
	return err == nil && parsed.Unmap() == address
}
