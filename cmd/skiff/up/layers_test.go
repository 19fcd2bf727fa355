package up

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/operator"
)

// dropIn writes a drop-in of a daemon below root.
func dropIn(t *testing.T, root, daemon, kind, name, content string) string {
	t.Helper()
	file := filepath.Join(config.DropInDir(Layout{Root: root}.UserConfig(daemon)), name)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("apiVersion: "+config.APIVersion+"\nkind: "+kind+"\n"+content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func planIn(t *testing.T, root string, change func(*Options)) (*Options, *Plan, error) {
	t.Helper()
	o := DefaultOptions()
	o.Root = root
	if change != nil {
		change(o)
	}
	p, err := o.Plan(operator.Control)
	return o, p, err
}

func TestADropInThatIsRemovedLosesItsEffect(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	files := []string{
		dropIn(t, root, "control", config.ControlKind, "50-a.yaml", "port: 7443\nloadBalancerPool: [192.0.2.10-192.0.2.20]\n"),
		dropIn(t, root, "agent", config.AgentKind, "50-a.yaml", "port: 7250\nnodeLabels: {zone: a}\n"),
		dropIn(t, root, "proxy", config.ProxyKind, "50-a.yaml", "mode: ipvs\n"),
	}
	o, plan, err := planIn(t, root, nil)
	if err != nil {
		t.Fatal(err)
	}
	if plan.Control.Port != 7443 || plan.Agent.Port != 7250 || plan.Agent.NodeLabels["zone"] != "a" || plan.Proxy.Mode != "ipvs" {
		t.Errorf("the plan does not have what the drop-ins say: %+v", plan.Agent)
	}
	// As init and join do.
	if err := o.Change(plan, func(c *config.Control, a *config.Agent, _ *config.Proxy) {
		c.Join, a.ControlAddresses = true, []string{"h:1"}
	}); err != nil {
		t.Fatal(err)
	}
	if !plan.Control.Join || plan.Control.Port != 7443 {
		t.Errorf("after a change: %+v", plan.Control)
	}
	if err := o.Save(plan); err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	_, later, err := planIn(t, root, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c := later.Control; c.Port != 6443 || len(c.LoadBalancerPool) > 0 || !c.Join {
		t.Errorf("control without its drop-in: %+v", c)
	}
	if a := later.Agent; a.Port != 10250 || len(a.NodeLabels) > 0 || !slices.Equal(a.ControlAddresses, []string{"h:1"}) || later.Proxy.Mode != "auto" {
		t.Errorf("agent without its drop-in: %+v", a)
	}
}

func TestWhatADropInContradictsIsRefused(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dropIn(t, root, "control", config.ControlKind, "50-a.yaml", "port: 7443\nserviceCIDR: 10.97.0.0/16\n")
	dropIn(t, root, "agent", config.AgentKind, "50-a.yaml", "controlAddresses: [\"vip:6443\"]\n")
	_, _, err := planIn(t, root, func(o *Options) { o.Port = 8443 })
	if err == nil || !strings.Contains(err.Error(), "control.d") || !strings.Contains(err.Error(), "port") {
		t.Errorf("a flag that does not hold: %v", err)
	}
	o, plan, err := planIn(t, root, func(o *Options) { o.Port = 7443 })
	if err != nil {
		t.Fatalf("a flag that says the same: %v", err)
	}
	err = o.Change(plan, func(c *config.Control, a *config.Agent, _ *config.Proxy) {
		c.ServiceCIDR, a.ControlAddresses = "10.96.0.0/16", []string{"192.0.2.1:6443"}
	})
	if err == nil || !strings.Contains(err.Error(), "serviceCIDR") || strings.Contains(err.Error(), "controlAddresses") {
		t.Errorf("a cluster that says otherwise: %v", err)
	}
}

func TestOneMachineHasOneNameAndAddress(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dropIn(t, root, "agent", config.AgentKind, "50-a.yaml", "nodeIP: 192.0.2.7\nnodeName: seven\n")
	_, plan, err := planIn(t, root, func(o *Options) { o.NodeIP, o.AddressFound = "198.51.100.1", true })
	if err != nil {
		t.Fatal(err)
	}
	if plan.Control.AdvertiseAddress != "192.0.2.7" || plan.Control.NodeName != "seven" || plan.Proxy.NodeName != "seven" || plan.Agent.NodeIP != "192.0.2.7" {
		t.Errorf("control %s at %s, proxy %s, agent at %s", plan.Control.NodeName, plan.Control.AdvertiseAddress, plan.Proxy.NodeName, plan.Agent.NodeIP)
	}
}

func TestOptionsOfAStartWinOverEverything(t *testing.T) {
	// No t.Parallel: it sets environment variables.
	root := t.TempDir()
	dropIn(t, root, "agent", config.AgentKind, "50-a.yaml", "port: 7250\nmaxPods: 7\nbridge: file0\n")
	t.Setenv("SKIFF_AGENT_MAX_PODS", "9")
	o := DefaultOptions()
	o.Root, o.AgentPort = root, 8250
	c, err := o.configure()
	if err != nil {
		t.Fatal(err)
	}
	if c.agent.Port != 8250 || c.agent.MaxPods != 9 || c.agent.Bridge != "file0" {
		t.Errorf("port %d, %d pods, bridge %s", c.agent.Port, c.agent.MaxPods, c.agent.Bridge)
	}
}
