package cluster

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/cmd/skiff/join"
	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/host"
)

// machine is what the cluster knows of a host as a control machine; nil for
// nothing.
func (o *operated) machine(at *host.Host, of *host.Host) *join.Machine {
	o.t.Helper()
	for _, machine := range o.survey(at).Machines {
		if machine.Status != nil && machine.Status.NodeName == of.Name {
			return &machine
		}
	}
	return nil
}

// renews has all certificates of a host made anew while it serves.
func (o *operated) renews(t *testing.T, h *host.Host) {
	before := o.skiff(h, "pki", "check", "-o", "json")
	said := o.skiff(h, "pki", "renew")
	for _, name := range []string{"apiserver", "store-peer", "admin.conf"} {
		if !strings.Contains(before, `"`+name+`"`) || !strings.Contains(said, name) {
			t.Errorf("%s is not listed or not renewed:\n%s\n%s", name, before, said)
		}
	}
	if said := o.skiff(h, "pki", "check"); !strings.Contains(said, "store-peer") {
		t.Errorf("check says %s", said)
	}
	o.healthy(h, 3)
	// It votes already: there is nothing to promote, and that is no error.
	if said := o.skiff(h, "member", "promote", h.Name); !strings.Contains(said, "promoted") {
		t.Errorf("promote says %s", said)
	}
}

// repairs damages a host's store while its daemons are down; another one looks on.
func (o *operated) repairs(t *testing.T, h, other *host.Host) {
	former := o.machine(other, h).Member.ID
	o.skiff(other, "kubectl", "create", "configmap", "before", "--from-literal=a=b")
	o.skiff(h, "down")
	if _, err := h.Run(t.Context(), "sh", "-c", `cd /var/lib/skiff/control/store/log && printf '\377\377\377\377' | dd of="$(ls *.wal | head -n 1)" bs=1 seek=20000 conv=notrunc`); err != nil {
		t.Fatal(err)
	}
	o.skiff(other, "kubectl", "create", "configmap", "meanwhile", "--from-literal=a=b")
	o.skiff(h, "up", "--detach")
	o.healthy(other, 3)
	ids := o.members(other)
	if machine := o.machine(other, h); machine == nil || machine.Member == nil || machine.Member.ID == former || len(ids) != 3 || slices.Contains(ids, former) {
		t.Errorf("member %s became %+v of %v", former, machine, ids)
	}
	for _, name := range []string{"before", "meanwhile"} {
		o.skiff(h, "kubectl", "get", "configmap", name)
	}
	if aside, err := filepath.Glob(h.Path("/var/lib/skiff/control/store/damaged-*/log/*.wal")); err != nil || len(aside) == 0 {
		t.Errorf("the damaged files are gone: %v %v", aside, err)
	}
}

// removes takes a host's living member out of the store, as another one is told to.
func (o *operated) removes(t *testing.T, h, other *host.Host) {
	id := o.machine(other, h).Member.ID
	if said := o.skiff(other, "member", "remove", h.Name); !strings.Contains(said, "removed "+id) {
		t.Errorf("remove says %s", said)
	}
	testenv.Eventually(t, 30*time.Second, func() bool {
		said, err := h.Run(t.Context(), "tail", "-n", "2", "/var/log/skiff/up.log")
		return err == nil && strings.Contains(said, "skiff-control ended and stays so") && strings.Contains(said, "skiff reset --yes")
	}, "the removed member's daemon does not end for good")
	if pids, err := h.Processes("skiff-control"); err != nil || len(pids) > 0 {
		t.Errorf("skiff-control runs: %v %v", pids, err)
	}
	o.healthy(other, 2)
	if said := o.skiff(other, "member", "list"); strings.Contains(said, id) || strings.Contains(said, h.Name) {
		t.Errorf("it is still listed:\n%s", said)
	}
	// The machine itself can still ask the others.
	if said := o.skiff(h, "status"); strings.Contains(said, id) {
		t.Errorf("status on the removed machine:\n%s", said)
	}
}

// moves gives a host, whose daemons are down, another address and starts it.
// orderly: they were not killed.
func (o *operated) moves(t *testing.T, h, other *host.Host, orderly bool) {
	id, former := o.memberAt(other, h.Address.String()), h.Address.String()
	bytes := h.Address.As4()
	bytes[3] += 100
	if err := h.SetAddress(netip.AddrFrom4(bytes)); err != nil {
		t.Fatal(err)
	}
	address := h.Address.String()
	o.skiff(h, "up", "--detach")
	o.healthy(other, 3)
	if now := o.memberAt(other, address); now != id || id == "" {
		t.Errorf("member %s at %s is %q at %s", id, former, now, address)
	}
	testenv.Eventually(t, 30*time.Second, func() bool {
		endpoints, err := o.try(other, "kubectl", "get", "endpoints", "kubernetes", "-o", "jsonpath={.subsets[*].addresses[*].ip}")
		found := strings.Fields(endpoints)
		// One that had no time to say that it ends counts as serving until its lease ends.
		return err == nil && slices.Contains(found, address) && (!orderly || !slices.Contains(found, former))
	}, "the endpoints of the API do not follow")
	// Its kubeconfigs and both its servers' certificates name the new address.
	if said := o.skiff(h, "kubectl", "cluster-info"); !strings.Contains(said, "https://"+address+":6443") {
		t.Errorf("cluster-info says %s", said)
	}
	o.skiff(other, "kubectl", "get", "--server", "https://"+address+":6443", "--raw", "/readyz")
	testenv.Eventually(t, 30*time.Second, func() bool {
		said, err := o.try(other, "kubectl", "get", "--raw", "/api/v1/nodes/"+h.Name+"/proxy/healthz")
		return err == nil && strings.TrimSpace(said) == "ok"
	}, "the API servers do not reach the agent at its new address")
}

// memberAt is the id of the member at an address.
func (o *operated) memberAt(at *host.Host, address string) string {
	o.t.Helper()
	survey := o.survey(at)
	found, err := survey.Resolve(address)
	if err != nil {
		return ""
	}
	return found.Member.ID
}
