package proxy

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/skiff-run/skiff/internal/addresspool"
	"github.com/skiff-run/skiff/proxy/table"
)

// announced are the addresses of the cluster's pool that services have, and
// whether this machine may announce each: with the policy Local it needs an
// endpoint.
func announced(services []*corev1.Service, t *table.Table, node *corev1.Node) map[netip.Addr]bool {
	all := map[netip.Addr]bool{}
	for _, s := range services {
		if s.Annotations[addresspool.Mark] == "" || s.Spec.Type != corev1.ServiceTypeLoadBalancer {
			continue
		}
		for _, ingress := range s.Status.LoadBalancer.Ingress {
			if address, err := netip.ParseAddr(ingress.IP); err == nil {
				all[address] = false
			}
		}
	}
	if len(all) == 0 || !serves(node) {
		return all
	}
	for _, port := range t.Ports {
		for _, address := range port.LoadBalancerIPs {
			if _, ours := all[address]; ours && (!port.ExternalLocal || len(port.Local) > 0) {
				all[address] = true
			}
		}
	}
	return all
}

// announce tells the announcer of the addresses, once their rules are in place.
func (p *Proxy) announce(t *table.Table) error {
	services, err := p.services.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	// A machine that has not registered announces nothing.
	node, err := p.nodes.Get(p.config.NodeName)
	if err != nil {
		node = nil
	}
	p.announcer.Want(announced(services, t, node))
	return nil
}

// serves says whether load balancers may use the node at all.
func serves(node *corev1.Node) bool {
	if node == nil {
		return false
	}
	_, excluded := node.Labels[corev1.LabelNodeExcludeBalancers]
	return !excluded && eligible(node)
}

// owner is this machine's Node as the owner of what lives as long as it.
func (p *Proxy) owner() *metav1.OwnerReference {
	node, err := p.nodes.Get(p.config.NodeName)
	if err != nil {
		return nil
	}
	return &metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}
}
