package ipvs

import (
	"errors"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/proxy/backendtest"
	"github.com/skiff-run/skiff/proxy/table"
)

// requireIPVS skips the test where the kernel or the machine lacks something.
func requireIPVS(t testing.TB) {
	t.Helper()
	testenv.RequireRoot(t)
	if err := load(); err != nil {
		t.Skipf("%v: `make test-ipvs` runs this in a virtual machine", err)
	}
	testenv.RequireProgram(t, "ipset", "iptables", "ipvsadm")
}

func TestServicesInTheKernel(t *testing.T) {
	t.Parallel()
	requireIPVS(t)
	backendtest.Run(t, backendtest.Subject{
		New: func(clusterCIDRs []netip.Prefix) (backendtest.Backend, error) {
			return New(Options{ClusterCIDRs: clusterCIDRs})
		},
		Damage: []string{
			"ipvsadm -D -t 10.96.0.5:80",
			"ipvsadm -d -t 10.96.0.5:80 -r 10.244.0.2:8080",
			"ipvsadm -e -t 10.96.0.5:80 -r 10.244.0.2:8080 -m -w 0",
			"ipvsadm -a -t 10.96.0.5:80 -r 10.244.0.3:8080 -m -w 1",
			"ipvsadm -E -t 10.96.0.5:80 -s wrr",
			"ipvsadm -C",
			"ip address del 10.96.0.5/32 dev kube-ipvs0",
			"ip address add 10.96.0.77/32 dev kube-ipvs0",
			"ip link del kube-ipvs0",
			"ipset flush KUBE-CLUSTER-IP",
			"ipset flush KUBE-IPVS-SERVICES",
			"ipset add KUBE-IPVS-REFUSED 10.96.0.5,tcp:80",
			"iptables -t nat -F KUBE-IPVS-SERVICES",
			"iptables -t nat -D POSTROUTING -j KUBE-IPVS-POSTROUTING",
			"iptables -I KUBE-IPVS-FILTER -j DROP",
			"iptables -F",
			"sysctl -w net.ipv4.vs.conntrack=0",
			"ipvsadm -C; iptables -t nat -F; iptables -t mangle -F; iptables -F; ipset flush; ip address flush dev kube-ipvs0",
		},
	})
}

// TestABridgeHoldsAddresses where the kernel has no dummy devices.
func TestABridgeHoldsAddresses(t *testing.T) {
	t.Parallel()
	requireIPVS(t)
	backendtest.Run(t, backendtest.Subject{
		New: func(clusterCIDRs []netip.Prefix) (backendtest.Backend, error) {
			return New(Options{ClusterCIDRs: clusterCIDRs, Scheduler: "mh", holders: []string{"nonsense", "bridge"}})
		},
		Damage: []string{"ip link del kube-ipvs0"},
	})
}

// inNamespace runs f in a network namespace of its own.
func inNamespace(t testing.TB, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the runtime throws the thread away with its namespace.
		runtime.LockOSThread()
		handle, err := netns.New()
		if err == nil {
			defer handle.Close()
			err = exec.Command("ip", "link", "set", "lo", "up").Run()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

func TestTheKernelHasEveryScheduler(t *testing.T) {
	t.Parallel()
	requireIPVS(t)
	inNamespace(t, func() error {
		for _, scheduler := range Schedulers() {
			b, err := New(Options{Scheduler: scheduler})
			if err != nil {
				return err
			}
			// Each takes over what the one before it left.
			if err := b.Sync(t.Context(), tableOf(port("default/web:", "10.96.0.5", "10.244.0.2:80"))); err != nil {
				return err
			}
			if got := output(t, "ipvsadm", "-Sn"); !strings.Contains(got, "-A -t 10.96.0.5:80 -s "+scheduler) {
				t.Errorf("%s: the kernel has %s", scheduler, got)
			}
			if found, err := b.Check(t.Context()); found != "" || err != nil {
				t.Errorf("%s: after a sync: %s, %v", scheduler, found, err)
			}
		}
		b, err := New(Options{Scheduler: "nonsense"})
		if err != nil {
			return err
		}
		if err := b.Sync(t.Context(), tableOf(port("default/web:", "10.96.0.6", "10.244.0.2:80"))); err == nil || !strings.Contains(err.Error(), "ip_vs_nonsense") {
			t.Errorf("a scheduler that the kernel lacks: %v", err)
		}
		return nil
	})
}

func TestTimeoutsAndARP(t *testing.T) {
	t.Parallel()
	requireIPVS(t)
	inNamespace(t, func() error {
		b, err := New(Options{TCPTimeout: 20 * time.Minute, UDPTimeout: 77 * time.Second, StrictARP: true})
		if err != nil {
			return err
		}
		if err := b.Sync(t.Context(), tableOf()); err != nil {
			return err
		}
		if got := output(t, "ipvsadm", "-L", "--timeout"); !strings.Contains(got, "1200 120 77") {
			t.Errorf("the kernel has %s", got)
		}
		if got := output(t, "sysctl", "-n", "net.ipv4.conf.all.arp_ignore", "net.ipv4.conf.all.arp_announce"); got != "1\n2\n" {
			t.Errorf("arp_ignore and arp_announce are %q", got)
		}
		return nil
	})
}

func TestNodePortsFollowAddresses(t *testing.T) {
	t.Parallel()
	requireIPVS(t)
	inNamespace(t, func() error {
		b, err := New(Options{})
		if err != nil {
			return err
		}
		web := with(port("default/web:", "10.96.0.5", "10.244.0.2:80"), func(p *table.ServicePort) { p.NodePort = 30080 })
		if err := b.Sync(t.Context(), tableOf(web)); err != nil {
			return err
		}
		for _, step := range []struct {
			command []string
			served  bool
		}{{[]string{"ip", "address", "add", "192.0.2.9/24", "dev", "lo"}, true}, {[]string{"ip", "address", "del", "192.0.2.9/24", "dev", "lo"}, false}} {
			output(t, step.command[0], step.command[1:]...)
			if found, err := b.Check(t.Context()); found != "" || err != nil {
				t.Errorf("%v is taken for a change of our rules: %s, %v", step.command, found, err)
			}
			if got := output(t, "ipvsadm", "-Sn"); strings.Contains(got, "192.0.2.9:30080") != step.served {
				t.Errorf("after %v the kernel has %s", step.command, got)
			}
		}
		return nil
	})
}

// TestExcludedServicesStay even if they look like ours.
func TestExcludedServicesStay(t *testing.T) {
	t.Parallel()
	requireIPVS(t)
	inNamespace(t, func() error {
		excluded := []netip.Prefix{netip.MustParsePrefix("10.96.7.0/24")}
		b, err := New(Options{ExcludeCIDRs: excluded})
		if err != nil {
			return err
		}
		if err := b.Sync(t.Context(), tableOf()); err != nil {
			return err
		}
		for _, address := range []string{"10.96.7.1", "10.96.8.1"} {
			output(t, "ip", "address", "add", address+"/32", "dev", HolderName)
			output(t, "ipvsadm", "-A", "-t", address+":80", "-s", "rr")
		}
		if b, err = New(Options{ExcludeCIDRs: excluded}); err != nil {
			return err
		}
		if err := b.Sync(t.Context(), tableOf()); err != nil {
			return err
		}
		if got := output(t, "ipvsadm", "-Sn"); got != "-A -t 10.96.7.1:80 -s rr\n" {
			t.Errorf("the kernel has %q", got)
		}
		return nil
	})
}

// TestALingeringAddressIsNoSource of what the machine sends: it is about to go.
func TestALingeringAddressIsNoSource(t *testing.T) {
	t.Parallel()
	requireIPVS(t)
	inNamespace(t, func() error {
		output(t, "sh", "-ec", "ip link add uplink type dummy; ip link set uplink up; ip address add 192.0.2.1/24 dev uplink; ip address add 2001:db8:2::1/64 dev uplink nodad; ip route add default via 192.0.2.254; ip route add default via 2001:db8:2::fe")
		h, err := openHolder()
		if err != nil {
			return err
		}
		defer h.close()
		if err := h.ensure("dummy"); err != nil {
			return err
		}
		for _, each := range []struct{ address, source string }{{"10.96.0.5", "192.0.2.1"}, {"fd00:10:96::5", "2001:db8:2::1"}} {
			address := netip.MustParseAddr(each.address)
			if err := h.add(address); err != nil {
				return err
			}
			_, own, err := h.addresses()
			if err != nil {
				return err
			}
			source := h.source(familyOf(address), own)
			if source.String() != each.source {
				t.Errorf("the machine's own address is %s, not %s", source, each.source)
			}
			for range 2 {
				if err := h.setSource(address, source); err != nil {
					return err
				}
				if got := output(t, "ip", "route", "get", each.address); !strings.Contains(got, "local "+each.address) || !strings.Contains(got, "src "+each.source) {
					t.Errorf("%s is reached by %s", each.address, got)
				}
			}
			if err := errors.Join(h.remove(address), h.unsetSource(address)); err != nil {
				return err
			}
			if got := output(t, "sh", "-c", "ip route show table local; ip -6 route show table local"); strings.Contains(got, each.address) {
				t.Errorf("left: %s", got)
			}
		}
		return nil
	})
}
