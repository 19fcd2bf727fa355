package iptables_test

import (
	"net/netip"
	"testing"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/proxy/backendtest"
	"github.com/skiff-run/skiff/proxy/iptables"
)

func TestServicesInTheKernel(t *testing.T) {
	t.Parallel()
	for _, variant := range []iptables.Variant{iptables.NFT, iptables.Legacy} {
		t.Run(string(variant), func(t *testing.T) {
			t.Parallel()
			program := "iptables-" + string(variant)
			testenv.RequireProgram(t, program)
			backendtest.Run(t, backendtest.Subject{
				New: func(clusterCIDRs []netip.Prefix) (backendtest.Backend, error) {
					return iptables.New(iptables.Options{ClusterCIDRs: clusterCIDRs, Variant: variant, LocalhostNodePorts: true})
				},
				LocalhostNodePorts: true,
				Damage: []string{
					program + " -t nat -F KUBE-SERVICES",
					program + " -t nat -D PREROUTING -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES",
					program + " -t nat -D KUBE-SERVICES 1",
					program + " -t nat -F KUBE-NODEPORTS",
					program + " -F KUBE-PROXY-FIREWALL",
					program + " -I KUBE-SERVICES -j DROP",
					program + " -t mangle -X KUBE-PROXY-CANARY",
					program + "-save -t nat | grep -v KUBE- | " + program + "-restore",
				},
			})
		})
	}
}
