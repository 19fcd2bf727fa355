package up

import (
	"path/filepath"
	"testing"

	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/operator"
)

// saved plans a control machine with the options, saves it, and returns what a
// later start without options plans.
func saved(t *testing.T, change func(*Options)) (first, later *Plan) {
	t.Helper()
	root := t.TempDir()
	plan := func(o *Options) *Plan {
		o.Root = root
		p, err := o.Plan(operator.Control)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	o := DefaultOptions()
	change(o)
	first = plan(o)
	if err := o.Save(first); err != nil {
		t.Fatal(err)
	}
	return first, plan(DefaultOptions())
}

func TestWhatAFlagSaidHoldsForLaterStarts(t *testing.T) {
	t.Parallel()
	_, later := saved(t, func(o *Options) {
		o.NodeIP, o.NodeName, o.PodCIDR, o.PeerPort, o.Port = "192.0.2.77", "named", "10.32.0.0/16", 7444, 7443
	})
	c := later.Control
	if later.Agent.NodeIP != "192.0.2.77" || c.AdvertiseAddress != "192.0.2.77" || later.Agent.NodeName != "named" || c.PodCIDR != "10.32.0.0/16" ||
		later.Proxy.ClusterCIDR != "10.32.0.0/16" || c.Peer() != "192.0.2.77:7444" || c.Address() != "192.0.2.77:7443" {
		t.Errorf("got %+v %+v", c, later.Agent)
	}
}

func TestAnAddressThatWasFoundIsFoundAgain(t *testing.T) {
	t.Parallel()
	found, err := defaultAddress()
	if err != nil {
		t.Skip(err)
	}
	first, later := saved(t, func(o *Options) {})
	if first.Agent.NodeIP != found || later.Agent.NodeIP != found || later.Control.AdvertiseAddress != found {
		t.Errorf("first %s, later %s, want %s", first.Agent.NodeIP, later.Agent.NodeIP, found)
	}
	// Another start on another address: what is on disk names none.
	o := DefaultOptions()
	o.Root, o.NodeIP = t.TempDir(), found
	pinned, err := o.Plan(operator.Control)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Save(pinned); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		root string
		want string
	}{"found": {filepath.Join(first.Control.PKIDir, "../../.."), ""}, "given": {o.Root, found}} {
		if got := addressOnDisk(t, tc.root); got != tc.want {
			t.Errorf("%s: the file says %q, want %q", name, got, tc.want)
		}
	}
}

func addressOnDisk(t *testing.T, root string) string {
	t.Helper()
	c := config.DefaultControl()
	if err := config.Load(Layout{Root: root}.UserConfig("control"), config.ControlKind, c); err != nil {
		t.Fatal(err)
	}
	return c.AdvertiseAddress
}
