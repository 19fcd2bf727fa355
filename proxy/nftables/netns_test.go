package nftables_test

import (
	"fmt"
	"net/netip"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/proxy/backendtest"
	"github.com/skiff-run/skiff/proxy/nftables"
	"github.com/skiff-run/skiff/proxy/table"
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

// TestAHundredThousandEndpoints of one service, some of them of the wrong
// family, are programmed and a hundred less are too.
func TestAHundredThousandEndpoints(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "nft")
	c := newCluster(1)
	slices := c.slices["s00000"][:0]
	for i := range 1000 {
		slices = append(slices, slice(10*i, 100))
		slices[i].Name = fmt.Sprintf("slice-%d", i)
		slices[i].Endpoints = append(slices[i].Endpoints, discoveryv1.Endpoint{Addresses: []string{"2001:db8::1"}})
	}
	inNamespace(t, func(backend *nftables.Backend) error {
		for _, endpoints := range []int{1000, 999} {
			c.slices["s00000"] = slices[:endpoints]
			services := table.Build(table.Node{Name: "here"}, c.services, c.slicesOf)
			if n := len(services.Ports[0].Cluster); n != 100*endpoints {
				return fmt.Errorf("%d endpoints of %d", n, 100*endpoints)
			}
			if err := backend.Sync(t.Context(), services); err != nil {
				return err
			}
			if found, err := backend.Check(t.Context()); err != nil || found != "" {
				return fmt.Errorf("found %q: %w", found, err)
			}
		}
		return nil
	})
}
