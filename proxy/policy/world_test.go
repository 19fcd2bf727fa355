package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/proxy/backendtest"
)

// places are the addresses of the pods and of a client outside, IPv4 and IPv6.
var places = map[string][2]string{
	"web": {"10.244.0.2", "fd00:10:244::2"}, "db": {"10.244.0.3", "fd00:10:244::3"},
	// far is a pod of another node, in another namespace.
	"far":    {"10.244.1.2", "fd00:10:244:1::2"},
	"client": {"192.0.2.100", "2001:db8:2::100"}, "stranger": {"192.0.2.101", "2001:db8:2::101"},
	"node":    {"192.0.2.1", "2001:db8:2::1"},
	"service": {"10.96.0.5", "fd00:10:96::5"}, "gateway": {"169.254.1.1", "fd00:169:254::1"},
}

var ranges = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00:10:244::/64")}

// world is a node with the pods web and db, a pod elsewhere and a host outside,
// seen by one address family.
type world struct {
	t      *testing.T
	family int // 0 is IPv4, 1 is IPv6
	hosts  map[string]backendtest.Host
	kernel *Kernel
}

func both(place string, bits4, bits6 int) []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr(places[place][0]), bits4), netip.PrefixFrom(netip.MustParseAddr(places[place][1]), bits6)}
}

func newWorld(t *testing.T, family int) *world {
	t.Helper()
	w := &world{t: t, family: family, hosts: map[string]backendtest.Host{"node": backendtest.NewHost(t)}}
	node := w.hosts["node"]
	node.Route()
	for _, outside := range []string{"client", "stranger"} {
		w.hosts[outside] = backendtest.NewHost(t)
		w.hosts[outside].Plug(node, outside, both("node", 32, 128), both(outside, 32, 128))
	}
	for _, pod := range []string{"web", "db", "far"} {
		w.hosts[pod] = backendtest.NewHost(t)
		w.hosts[pod].Plug(node, pod, both("gateway", 32, 128), both(pod, 32, 128))
	}
	for name, h := range w.hosts {
		h.Serve(name, 80)
		h.Serve(name, 81)
		h.Serve(name, 8080)
	}
	node.Must(func() (err error) {
		w.kernel, err = NewKernel()
		return err
	})
	return w
}

func (w *world) address(place string) netip.Addr {
	return netip.MustParseAddr(places[place][w.family])
}

func podOf(name string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "1", Labels: map[string]string{"app": name}}}
	p.Spec.NodeName = "here"
	if name == "far" {
		p.Namespace, p.Spec.NodeName = "office", "elsewhere"
	}
	p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{
		{Name: "http", ContainerPort: 80, Protocol: corev1.ProtocolTCP}, {Name: "names", ContainerPort: 81, Protocol: corev1.ProtocolUDP},
	}}}
	p.Status.Phase = corev1.PodRunning
	for _, ip := range places[name] {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	return p
}

func input(policies ...*networkingv1.NetworkPolicy) Input {
	in := Input{Node: "here", Ranges: ranges, Policies: policies, Pods: []*corev1.Pod{podOf("web"), podOf("db"), podOf("far")}}
	for _, name := range []string{"shop", "office"} {
		in.Namespaces = append(in.Namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": name}}})
	}
	return in
}

func (w *world) enforce(in Input) {
	w.t.Helper()
	w.hosts["node"].Must(func() error { return w.kernel.Sync(w.t.Context(), Compile(in)) })
}

const (
	// answerLimit is how long an answer may take on a busy machine.
	answerLimit = 5 * time.Second
	// silenceLimit is how long nobody has to answer to count as silent.
	silenceLimit = 200 * time.Millisecond
)

// reach returns the name of who answers, or silent.
func (w *world) reach(network, from, to string, limit time.Duration) string {
	place, port, _ := strings.Cut(to, ":")
	var number uint16
	if _, err := fmt.Sscan(port, &number); err != nil {
		w.t.Fatalf("port in %q: %v", to, err)
	}
	connection, err := w.hosts[from].Connect(network, netip.AddrPortFrom(w.address(place), number), limit)
	if err != nil {
		return backendtest.Outcome(err)
	}
	defer connection.Close()
	answer, err := backendtest.Ask(connection, limit)
	if err != nil {
		return backendtest.Outcome(err)
	}
	name, _, _ := strings.Cut(answer, " ")
	return name
}

// expect checks lines such as "db>web:80/tcp" for open connections, with a
// minus before those that must be silent.
func (w *world) expect(lines string) {
	w.t.Helper()
	var group sync.WaitGroup
	for _, line := range strings.Fields(lines) {
		group.Go(func() {
			text, closed := strings.CutPrefix(line, "-")
			path, network, _ := strings.Cut(text, "/")
			from, to, _ := strings.Cut(path, ">")
			want, limit := strings.SplitN(to, ":", 2)[0], answerLimit
			if want == "service" {
				want = "web"
			}
			if closed {
				want, limit = "silent", silenceLimit
			}
			if got := w.reach(network, from, to, limit); got != want {
				w.t.Errorf("%s: got %s, want %s", text, got, want)
			}
		})
	}
	group.Wait()
}
