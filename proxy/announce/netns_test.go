package announce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/vishvananda/netlink"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/proxy/backendtest"
)

// api is a clientset whose updates are refused when they are stale, as those of
// a real API server are, and that can be cut off from a node.
type api struct {
	*fake.Clientset
	mu      sync.Mutex // guards what follows
	version int
}

func newAPI() *api {
	a := &api{Clientset: fake.NewClientset()}
	a.PrependReactor("create", "leases", func(action clienttesting.Action) (bool, runtime.Object, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.version++
		action.(clienttesting.CreateAction).GetObject().(*coordinationv1.Lease).ResourceVersion = strconv.Itoa(a.version)
		return false, nil, nil
	})
	a.PrependReactor("update", "leases", func(action clienttesting.Action) (bool, runtime.Object, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		lease := action.(clienttesting.UpdateAction).GetObject().(*coordinationv1.Lease)
		stored, err := a.Tracker().Get(action.GetResource(), action.GetNamespace(), lease.Name)
		if err != nil {
			return true, nil, err
		}
		if stored.(*coordinationv1.Lease).ResourceVersion != lease.ResourceVersion {
			return true, nil, apierrors.NewConflict(action.GetResource().GroupResource(), lease.Name, errors.New("stale"))
		}
		a.version++
		lease = lease.DeepCopy()
		lease.ResourceVersion = strconv.Itoa(a.version)
		return true, lease, a.Tracker().Update(action.GetResource(), lease, action.GetNamespace())
	})
	return a
}

// lan is a bridge with a client and nodes on it.
type lan struct {
	t      *testing.T
	bridge backendtest.Host
	hosts  map[string]backendtest.Host
	api    *api
	stops  map[string]func()
	nodes  map[string]*Controller
}

var balancers = [2]string{"192.0.2.200", "2001:db8:2::200"}

func newLAN(t *testing.T) *lan {
	t.Helper()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "nft")
	l := &lan{t: t, bridge: backendtest.NewHost(t), hosts: map[string]backendtest.Host{}, api: newAPI(), stops: map[string]func(){}, nodes: map[string]*Controller{}}
	l.bridge.Must(func() error {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = "lan"
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attributes}); err != nil {
			return err
		}
		return ip("link set lan up")
	})
	for i, name := range []string{"client", "one", "two"} {
		h := backendtest.NewHost(t)
		l.hosts[name] = h
		// Names of links are unique: the standard library remembers the index of a
		// name without regard to namespaces.
		h.Must(func() error { return ip("link add e" + name + " type veth peer name p" + name) })
		h.Must(func() error {
			// The peer goes to the bridge by its namespace's handle.
			return ip("link set p" + name + " down")
		})
		l.connect(h, "p"+name)
		h.Must(func() error {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/e"+name+"/accept_dad", []byte("0"), 0o600); err != nil {
				return err
			}
			return errors.Join(ip(fmt.Sprintf("addr add 192.0.2.%d/24 dev e%s", i+1, name)), ip(fmt.Sprintf("addr add 2001:db8:2::%d/64 dev e%s nodad", i+1, name)), ip("link set e"+name+" up"))
		})
		if name == "client" {
			continue
		}
		h.Serve(name, 80)
		h.Must(func() error {
			script := fmt.Sprintf(`table inet balancer { chain p { type nat hook prerouting priority dstnat;
				ip daddr %s dnat ip to 192.0.2.%d; ip6 daddr %s dnat ip6 to 2001:db8:2::%d;
				}
			}`, balancers[0], i+1, balancers[1], i+1)
			output, err := exec.Command("nft", script).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, output)
			}
			return nil
		})
	}
	return l
}

// connect plugs a host's end of a cable into the bridge.
func (l *lan) connect(h backendtest.Host, link string) {
	l.t.Helper()
	h.Must(func() error {
		device, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		return netlink.LinkSetNsFd(device, l.bridge.FD())
	})
	l.bridge.Must(func() error { return errors.Join(ip("link set "+link+" master lan"), ip("link set "+link+" up")) })
}

func ip(command string) error {
	if output, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", command, err, output)
	}
	return nil
}

// start runs a node's part of the agreement.
func (l *lan) start(node string, eligible bool) {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.t.Context())
	ended, made := make(chan error, 1), make(chan *Controller, 1)
	go func() {
		ended <- l.hosts[node].In(func() error {
			c := New(Config{Client: l.api, NodeName: node, Owner: func() *metav1.OwnerReference { return nil }, Logger: slog.New(slog.DiscardHandler)})
			c.Want(wanted(eligible))
			made <- c
			return c.Run(ctx)
		})
	}()
	l.nodes[node] = <-made
	l.stops[node] = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			l.t.Error(err)
		}
	})
	l.t.Cleanup(l.stops[node])
}

func wanted(eligible bool) map[netip.Addr]bool {
	return map[netip.Addr]bool{netip.MustParseAddr(balancers[0]): eligible, netip.MustParseAddr(balancers[1]): eligible}
}

// answers returns which node answers at the balancer's address of a family.
func (l *lan) answers(family int) string {
	connection, err := l.hosts["client"].Connect("tcp", netip.AddrPortFrom(netip.MustParseAddr(balancers[family]), 80), 200*time.Millisecond)
	if err != nil {
		return ""
	}
	defer connection.Close()
	answer, err := backendtest.Ask(connection, 200*time.Millisecond)
	name, _, _ := strings.Cut(answer, " ")
	if err != nil {
		return ""
	}
	return name
}

// settled waits until a node answers for both families, and returns when.
func (l *lan) settled(node string) time.Time {
	l.t.Helper()
	for family := range balancers {
		testenv.Eventually(l.t, 30*time.Second, func() bool { return l.answers(family) == node }, "%s does not answer at %s", node, balancers[family])
	}
	return time.Now()
}

func TestAnAddressMovesWhenItsMachineDies(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.start("one", true)
	l.settled("one")
	l.start("two", true)
	l.settled("one") // another that could does not take it
	// The cable is pulled and the process killed: nobody says anything.
	l.bridge.Must(func() error { return ip("link set pone down") })
	died := time.Now()
	l.stops["one"]()
	t.Logf("moved within %s", l.settled("two").Sub(died).Round(time.Millisecond))
	// The machine comes back and does not take it away.
	l.bridge.Must(func() error { return ip("link set pone up") })
	l.start("one", true)
	l.settled("two")
	lease, err := l.api.CoordinationV1().Leases("kube-public").Get(t.Context(), "load-balancer-"+balancers[0], metav1.GetOptions{})
	if err != nil || *lease.Spec.HolderIdentity != "two" || *lease.Spec.LeaseTransitions != 1 {
		t.Errorf("got %v, %v", lease, err)
	}
}

func TestAMachineThatMayNotHaveAnAddressGivesItUp(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.start("one", true)
	l.settled("one")
	l.start("two", false)
	l.nodes["two"].Want(wanted(true))
	l.nodes["one"].Want(wanted(false)) // its endpoints went
	l.settled("two")
	l.nodes["two"].Want(nil)
	l.nodes["one"].Want(nil)
	testenv.Eventually(t, 30*time.Second, func() bool {
		// The client remembers who it was.
		l.hosts["client"].Must(func() error { return ip("neigh flush dev eclient") })
		return l.answers(0) == ""
	}, "an address that no service has is announced")
}

func TestOfTwoThatAnnounceTheOneWithoutTheAPIGivesWay(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	l.start("one", true)
	l.settled("one")
	// One cannot reach the API any more, and two has taken the address.
	c := l.nodes["one"]
	address := netip.MustParseAddr(balancers[0])
	c.conflict(address)
	if c.mu.Lock(); c.yielded[address] {
		t.Error("it gives way although the API says that the address is its own")
	}
	c.beaten = time.Time{}
	c.mu.Unlock()
	other := NewNetworkIn(t, l.hosts["two"])
	defer other.Close()
	l.hosts["two"].Must(func() error { return other.Set([]netip.Addr{address}) })
	testenv.Eventually(t, 30*time.Second, func() bool { return l.answers(0) == "two" }, "the other does not answer")
}

// NewNetworkIn makes a Network on a host.
func NewNetworkIn(t *testing.T, h backendtest.Host) (n *Network) {
	t.Helper()
	h.Must(func() error {
		n = NewNetwork(slog.New(slog.DiscardHandler), func(netip.Addr) {})
		return nil
	})
	return n
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	address := netip.MustParseAddr(balancers[0])
	for name, tc := range map[string]struct {
		eligible bool
		holder   string
		since    time.Duration
		heard    time.Duration
		want     action
	}{
		"ours":                             {true, "me", 0, 0, hold},
		"ours, and we may not have it":     {false, "me", 0, 0, release},
		"nobody's, just now":               {true, "", 0, 0, wait},
		"nobody's for a while":             {true, "", spread, 0, take},
		"nobody's, and we may not have it": {false, "", time.Hour, 0, wait},
		"another's that lives":             {true, "other", time.Hour, time.Second, wait},
		"another's that is silent":         {true, "other", time.Hour, patience + spread, take},
		"another's that has just got it":   {true, "other", time.Second, time.Hour, wait},
	} {
		got, again := decide(now, "me", address, tc.eligible, holding{tc.holder, now.Add(-tc.since)}, now.Add(-tc.heard))
		if got != tc.want {
			t.Errorf("%s: got %d, want %d", name, got, tc.want)
		}
		if got == wait && tc.eligible && !again.After(now) {
			t.Errorf("%s: looks again at %s", name, again)
		}
	}
}
