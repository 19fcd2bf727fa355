package nftables_test

import (
	"net/netip"
	"testing"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/proxy/backendtest"
	"github.com/skiff-run/skiff/proxy/nftables"
)

func TestServicesInTheKernel(t *testing.T) {
	t.Parallel()
	testenv.RequireProgram(t, "nft")
	backendtest.Run(t, backendtest.Subject{
		New: func(clusterCIDRs []netip.Prefix) (backendtest.Backend, error) {
			return nftables.New(nftables.Options{ClusterCIDRs: clusterCIDRs})
		},
		Damage: []string{
			"nft flush chain ip skiff-proxy services",
			"nft delete rule ip skiff-proxy nat-prerouting handle $(nft -a list chain ip skiff-proxy nat-prerouting | sed -n 's/.*jump services.*handle //p')",
			"nft flush map ip skiff-proxy service-ips",
			"nft flush map ip skiff-proxy firewall-ips",
			"nft flush set ip skiff-proxy nodeport-ips",
			"nft insert rule ip skiff-proxy services drop",
			"nft delete table ip skiff-proxy",
			"nft flush ruleset",
		},
	})
}
