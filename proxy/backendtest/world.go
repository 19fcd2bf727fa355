package backendtest

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/proxy/conntrack"
	"github.com/skiff-run/skiff/proxy/table"
)

// Backend is what is tested.
type Backend interface {
	Sync(ctx context.Context, t *table.Table) error
	Check(ctx context.Context) (string, error)
}

// places are the addresses by the names that cases use, IPv4 and IPv6.
var places = map[string][2]string{
	"client": {"192.0.2.100", "2001:db8:2::100"}, "stranger": {"192.0.2.101", "2001:db8:2::101"},
	"node": {"192.0.2.1", "2001:db8:2::1"}, "second": {"192.0.2.2", "2001:db8:2::2"},
	"here0": {"10.244.0.2", "fd00:10:244::2"}, "here1": {"10.244.0.3", "fd00:10:244::3"}, "far": {"10.244.1.2", "fd00:10:244:1::2"},
	"service": {"10.96.0.5", "fd00:10:96::5"}, "service2": {"10.96.0.6", "fd00:10:96::6"},
	"external": {"203.0.113.5", "2001:db8:113::5"}, "balancer": {"203.0.113.6", "2001:db8:113::6"},
	"localhost": {"127.0.0.1", "::1"},
	"gateway":   {"169.254.1.1", "fd00:169:254::1"},
}

// world is a node with two pods, a pod elsewhere, a host outside, and a backend
// that programs the node, seen by one address family.
type world struct {
	t       *testing.T
	family  int // 0 is IPv4, 1 is IPv6
	hosts   map[string]*host
	backend Backend
	flows   conntrack.Flows
	builder table.Builder
	// neighbours are the rules of others at the beginning.
	neighbours string
}

func newWorld(t *testing.T, family int, subject Subject) *world {
	t.Helper()
	node := newHost(t)
	w := &world{t: t, family: family, hosts: map[string]*host{"node": node}}
	both := func(place string, bits4, bits6 int) []netip.Prefix {
		return []netip.Prefix{
			netip.PrefixFrom(netip.MustParseAddr(places[place][0]), bits4), netip.PrefixFrom(netip.MustParseAddr(places[place][1]), bits6),
		}
	}
	client := newHost(t)
	w.hosts["client"], w.hosts["stranger"] = client, client
	client.plug(node, "uplink", both("node", 24, 64), append(both("client", 24, 64), both("stranger", 24, 64)...))
	node.must(func() error { return up("uplink", both("second", 24, 64)) })
	for _, pod := range []string{"here0", "here1", "far"} {
		w.hosts[pod] = newHost(t)
		w.hosts[pod].plug(node, pod, both("gateway", 32, 128), both(pod, 32, 128))
		w.hosts[pod].serve(pod, 8080)
		w.hosts[pod].serve(pod, 8081)
	}
	node.must(func() error {
		for file, value := range map[string]string{
			"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1",
			// Refusals must not be lost because there are many.
			"ipv4/icmp_ratelimit": "0", "ipv6/icmp/ratelimit": "0",
		} {
			if err := os.WriteFile("/proc/sys/net/"+file, []byte(value), 0o600); err != nil {
				return fmt.Errorf("make the node a router: %w", err)
			}
		}
		// A way to the world that leads nowhere.
		for i, every := range []string{"0.0.0.0/0", "::/0"} {
			if err := routes("uplink", []netip.Prefix{netip.MustParsePrefix(every)}, netip.MustParseAddr(places["client"][i])); err != nil {
				return err
			}
		}
		var err error
		w.backend, err = subject.New([]netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/47")})
		return err
	})
	if subject.Neighbours.Set != "" {
		w.shell(subject.Neighbours.Set)
		w.neighbours = w.shell(subject.Neighbours.Show)
	}
	return w
}

// address of a place, or of a place and port.
func (w *world) address(place string) netip.Addr {
	texts, known := places[place]
	if !known {
		w.t.Fatalf("no place %q", place)
	}
	return netip.MustParseAddr(texts[w.family])
}

func (w *world) addressPort(placePort string) netip.AddrPort {
	place, port, _ := strings.Cut(placePort, ":")
	var number uint16
	if _, err := fmt.Sscan(port, &number); err != nil {
		w.t.Fatalf("port in %q: %v", placePort, err)
	}
	return netip.AddrPortFrom(w.address(place), number)
}

// program has the backend serve services with their endpoints, as the proxy does.
func (w *world) program(nodePorts []string, offers ...offer) {
	w.t.Helper()
	addresses, err := table.ParseNodePortAddresses(w.inFamily(nodePorts))
	if err != nil {
		w.t.Fatal(err)
	}
	node := table.Node{Name: "here", Zone: "zone-a", Addresses: []netip.Addr{w.address("node")}, NodePorts: addresses}
	var services []*corev1.Service
	all := map[string][]*discoveryv1.EndpointSlice{}
	for i, o := range offers {
		service := w.service(fmt.Sprintf("s%d", i), o)
		services = append(services, service)
		all[service.Name] = w.slices(o.endpoints)
	}
	t := w.builder.Build(node, services, func(_, name string) []*discoveryv1.EndpointSlice { return all[name] })
	flows := conntrack.FlowsOf(t)
	w.hosts["node"].must(func() error {
		if err := w.backend.Sync(w.t.Context(), t); err != nil {
			return err
		}
		_, err := flows.After(w.flows).Forget()
		return err
	})
	w.flows = flows
}

// inFamily replaces places by their addresses, as ranges of one.
func (w *world) inFamily(texts []string) []string {
	var out []string
	for _, text := range texts {
		if _, place := places[text]; place {
			text = netip.PrefixFrom(w.address(text), w.address(text).BitLen()).String()
		}
		out = append(out, text)
	}
	return out
}

// service makes the Service of an offer: port 80 of TCP and of UDP.
func (w *world) service(name string, o offer) *corev1.Service {
	at := w.address("service").String()
	if o.second {
		at = w.address("service2").String()
	}
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: at, ClusterIPs: []string{at}, Ports: []corev1.ServicePort{
			{Name: "tcp", Protocol: corev1.ProtocolTCP, Port: 80}, {Name: "udp", Protocol: corev1.ProtocolUDP, Port: 80},
		}},
	}
	for _, with := range o.with {
		with(w, s)
	}
	return s
}

// slices makes a slice for each endpoint, written as the pod's name and words:
// not-ready, serving, terminating, zone-x for a hint, port=8081.
func (w *world) slices(endpoints []string) []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	for i, text := range endpoints {
		words := strings.Fields(text)
		has := func(word string) bool { return slices.Contains(words, word) }
		node, port := "elsewhere", int32(8080)
		if strings.HasPrefix(words[0], "here") {
			node = "here"
		}
		if has("port=8081") {
			port = 8081
		}
		endpoint := discoveryv1.Endpoint{
			Addresses: []string{w.address(words[0]).String()}, NodeName: &node,
			Conditions: discoveryv1.EndpointConditions{
				Ready: ptr.To(!has("not-ready") && !has("terminating")), Serving: ptr.To(!has("not-ready")), Terminating: ptr.To(has("terminating")),
			},
		}
		for _, word := range words {
			if strings.HasPrefix(word, "zone-") {
				endpoint.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: word}}}
			}
		}
		out = append(out, &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Name: fmt.Sprintf("slice-%d", i)},
			AddressType: []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}[w.family],
			Ports: []discoveryv1.EndpointPort{
				{Name: ptr.To("tcp"), Port: &port, Protocol: ptr.To(corev1.ProtocolTCP)}, {Name: ptr.To("udp"), Port: &port, Protocol: ptr.To(corev1.ProtocolUDP)},
				sctpSlicePort(port),
			},
			Endpoints: []discoveryv1.Endpoint{endpoint},
		})
	}
	return out
}

const (
	// answerLimit is how long an answer may take on a busy machine.
	answerLimit = 5 * time.Second
	// silenceLimit is how long nobody has to answer to count as silent.
	silenceLimit = 300 * time.Millisecond
)

// reach sends a line from a place and returns who answered and the client's
// address as the server saw it.
func (w *world) reach(network, from, to string, limit time.Duration) (name, source string, err error) {
	// Hosts with two addresses would choose one.
	var local netip.Addr
	if from == "client" || from == "stranger" {
		local = w.address(from)
	}
	connection, err := w.hosts[from].connect(network, local, w.addressPort(to), limit)
	if err != nil {
		return "", "", err
	}
	defer connection.Close()
	answer, err := ask(connection, limit)
	name, source, _ = strings.Cut(answer, " ")
	return name, source, err
}
