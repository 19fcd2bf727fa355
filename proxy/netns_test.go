package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"

	miekg "github.com/miekg/dns"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/proxy"
	"github.com/skiff-run/skiff/proxy/dns"
	"github.com/skiff-run/skiff/proxy/nftables"
)

// host is a network namespace that plays a node, or a pod behind it.
type host struct {
	t      *testing.T
	handle netns.NsHandle
}

// newHost makes an anonymous namespace with loopback up; it goes with its last handle.
func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t}
	done := make(chan error, 1)
	go func() {
		// The thread is never unlocked, so the runtime throws it away with its namespace.
		runtime.LockOSThread()
		var err error
		if h.handle, err = netns.New(); err == nil {
			var lo netlink.Link
			if lo, err = netlink.LinkByName("lo"); err == nil {
				err = netlink.LinkSetUp(lo)
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("make network namespace: %v", err)
	}
	t.Cleanup(func() { h.handle.Close() })
	return h
}

// in runs f in the host, on a thread of its own that ends with it. What f
// starts that outlives it must not depend on the namespace.
func (h *host) in(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(h.handle)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func (h *host) must(f func() error) {
	h.t.Helper()
	if err := h.in(f); err != nil {
		h.t.Fatal(err)
	}
}

// join connects a pod to the node with a veth pair.
func (h *host) join(pod *host, index int, podAddress string) {
	h.t.Helper()
	name := fmt.Sprintf("p%d", index)
	h.must(func() error {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = name
		veth := &netlink.Veth{LinkAttrs: attributes, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(pod.handle))}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("add veth: %w", err)
		}
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		gateway, _ := netlink.ParseAddr("169.254.1.1/32")
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: net.ParseIP(podAddress), Mask: net.CIDRMask(32, 32)}, Scope: netlink.SCOPE_LINK}
		return errors.Join(netlink.AddrAdd(link, gateway), netlink.LinkSetUp(link), netlink.RouteAdd(route),
			os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600))
	})
	pod.must(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		own, _ := netlink.ParseAddr(podAddress + "/32")
		gateway := net.ParseIP("169.254.1.1")
		return errors.Join(netlink.AddrAdd(link, own), netlink.LinkSetUp(link),
			netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: gateway, Mask: net.CIDRMask(32, 32)}, Scope: netlink.SCOPE_LINK}),
			netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway}))
	})
}

// serve answers every TCP connection and UDP packet in the host with its name
// and the client's address.
func (h *host) serve(name string, port int) {
	h.t.Helper()
	var listener net.Listener
	var packets net.PacketConn
	h.must(func() (err error) {
		if listener, err = net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", port)); err != nil {
			return err
		}
		packets, err = net.ListenPacket("udp", fmt.Sprintf("0.0.0.0:%d", port))
		return err
	})
	ended := make(chan struct{}, 2)
	go func() {
		defer func() { ended <- struct{}{} }()
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			remote, _, _ := net.SplitHostPort(connection.RemoteAddr().String())
			fmt.Fprintf(connection, "%s %s\n", name, remote)
			connection.Close()
		}
	}()
	go func() {
		defer func() { ended <- struct{}{} }()
		buffer := make([]byte, 64)
		for {
			_, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo([]byte(name+"\n"), from)
		}
	}()
	h.t.Cleanup(func() { listener.Close(); packets.Close(); <-ended; <-ended })
}

// dial connects from the host and returns what the other side says.
func (h *host) dial(network, address string) (string, error) {
	var line string
	err := h.in(func() error {
		connection, err := net.DialTimeout(network, address, 3*time.Second)
		if err != nil {
			return err
		}
		defer connection.Close()
		_ = connection.SetDeadline(time.Now().Add(3 * time.Second))
		if network == "udp" {
			if _, err := connection.Write([]byte("hello")); err != nil {
				return err
			}
		}
		line, err = bufio.NewReader(connection).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	})
	return strings.TrimSpace(line), err
}

// node is a host with two pods and a proxy on a fake API.
type node struct {
	*host
	client *fake.Clientset
	pods   []*host
}

func newNode(t *testing.T) *node {
	t.Helper()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "nft")
	n := &node{host: newHost(t), client: fake.NewClientset()}
	for i := range 2 {
		pod := newHost(t)
		n.join(pod, i, fmt.Sprintf("10.244.0.%d", i+2))
		pod.serve(fmt.Sprintf("pod%d", i), 8080)
		n.pods = append(n.pods, pod)
	}
	// A node has a way to the world; here it leads to nobody.
	n.must(func() error {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = "uplink"
		bridge := &netlink.Bridge{LinkAttrs: attributes}
		own, _ := netlink.ParseAddr("192.0.2.1/24")
		return errors.Join(netlink.LinkAdd(bridge), netlink.AddrAdd(bridge, own), netlink.LinkSetUp(bridge),
			netlink.RouteAdd(&netlink.Route{LinkIndex: bridge.Attrs().Index, Gw: net.ParseIP("192.0.2.254")}))
	})
	return n
}

// run starts a proxy whose kernel is the node's.
func (n *node) run(t *testing.T, changes ...func(*proxy.Config)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- n.in(func() error {
			backend, err := nftables.New(nftables.Options{ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}})
			if err != nil {
				return err
			}
			settings := proxy.Config{Client: n.client, NodeName: "here", Backend: backend, Logger: slog.New(slog.DiscardHandler)}
			for _, change := range changes {
				change(&settings)
			}
			p, err := proxy.New(settings)
			if err != nil {
				return err
			}
			return p.Run(ctx)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("proxy: %v", err)
		}
	})
}

func (n *node) service(t *testing.T, name string, change func(*corev1.Service), pods ...int) {
	t.Helper()
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Ports: []corev1.ServicePort{
			{Name: "tcp", Protocol: corev1.ProtocolTCP, Port: 80}, {Name: "udp", Protocol: corev1.ProtocolUDP, Port: 80},
		}},
	}
	change(service)
	if _, err := n.client.CoreV1().Services("default").Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.client.DiscoveryV1().EndpointSlices("default").Create(t.Context(), n.slice(name, pods), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (n *node) slice(name string, pods []int) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{
			{Name: ptr.To("tcp"), Port: ptr.To[int32](8080), Protocol: ptr.To(corev1.ProtocolTCP)},
			{Name: ptr.To("udp"), Port: ptr.To[int32](8080), Protocol: ptr.To(corev1.ProtocolUDP)},
		},
	}
	for _, i := range pods {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.244.0.%d", i+2)}, NodeName: ptr.To("here")})
	}
	return slice
}

func (h *host) eventually(t *testing.T, network, address, want string) {
	t.Helper()
	var got string
	var err error
	testenv.Eventually(t, 10*time.Second, func() bool {
		got, err = h.dial(network, address)
		return err == nil && strings.HasPrefix(got, want)
	}, "%s %s does not answer %q", network, address, want)
}

func at(clusterIP string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = clusterIP, []string{clusterIP} }
}

func TestAUDPClientFollowsItsServiceToAnotherEndpoint(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.service(t, "moving", at("10.96.0.5"), 0)
	n.run(t)
	client := n.pods[1]
	client.eventually(t, "udp", "10.96.0.5:80", "pod0")
	// One socket, so that the flow in conntrack stays the same.
	var connection net.Conn
	client.must(func() (err error) {
		connection, err = net.Dial("udp", "10.96.0.5:80")
		return err
	})
	defer connection.Close()
	say := func() string {
		buffer := make([]byte, 64)
		_ = connection.SetDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := connection.Write([]byte("hello")); err != nil {
			return err.Error()
		}
		size, err := connection.Read(buffer)
		if err != nil {
			return err.Error()
		}
		return strings.TrimSpace(string(buffer[:size]))
	}
	if got := say(); got != "pod0" {
		t.Fatalf("got %q", got)
	}
	if _, err := n.client.DiscoveryV1().EndpointSlices("default").Update(t.Context(), n.slice("moving", []int{1}), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 10*time.Second, func() bool { return say() == "pod1" }, "the flow stays with the old endpoint")
}

func TestRulesThatSomebodyElseRemovesComeBack(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.service(t, "one", at("10.96.0.5"), 0)
	// Listening is not for the loop's thread, so the host's loopback will do.
	metrics := freeAddress(t)
	n.run(t, func(c *proxy.Config) { c.CheckPeriod, c.MetricsAddress = 20*time.Millisecond, metrics })
	n.pods[1].eventually(t, "tcp", "10.96.0.5:80", "pod0")
	n.must(func() error { return nft("flush ruleset") })
	n.pods[1].eventually(t, "tcp", "10.96.0.5:80", "pod0")
	response, err := http.Get("http://" + metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(body), "\nskiff_proxy_restored_rules_total 1\n") {
		t.Errorf("the metric does not count it: %v\n%s", err, body)
	}
}

// freeAddress is one of loopback's that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestTheNodeObjectSaysWhereNodePortsAndHealthChecksAre(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.service(t, "balanced", func(s *corev1.Service) {
		at("10.96.0.5")(s)
		s.Spec.Type, s.Spec.Ports[0].NodePort, s.Spec.HealthCheckNodePort = corev1.ServiceTypeLoadBalancer, 30080, 30090
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}, 0)
	n.run(t, func(c *proxy.Config) { c.NodePorts.Primary = true })
	n.pods[1].eventually(t, "tcp", "10.96.0.5:80", "pod0")
	if line, err := n.dial("tcp", "192.0.2.1:30080"); err == nil {
		t.Errorf("%s answers on an address that nobody knows to be the node's", line)
	}
	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}}}
	if _, err := n.client.CoreV1().Nodes().Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	n.eventually(t, "tcp", "192.0.2.1:30080", "pod0")
	check := func() string {
		var said string
		err := n.in(func() error {
			connection, err := net.Dial("tcp", "192.0.2.1:30090")
			if err != nil {
				return err
			}
			defer connection.Close()
			fmt.Fprint(connection, "GET /healthz HTTP/1.0\r\n\r\n")
			data, err := io.ReadAll(connection)
			said = string(data)
			return err
		})
		return fmt.Sprintf("%s %v", said, err)
	}
	testenv.Eventually(t, 10*time.Second, func() bool {
		said := check()
		return strings.HasPrefix(said, "HTTP/1.0 200 ") && strings.Contains(said, `"localEndpoints": 1`)
	}, "the health check does not find the endpoint")
	if _, err := n.client.DiscoveryV1().EndpointSlices("default").Update(t.Context(), n.slice("balanced", nil), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 10*time.Second, func() bool { return strings.HasPrefix(check(), "HTTP/1.0 503 ") }, "the health check does not notice that the endpoint went")
}

func TestADryRunChangesNothing(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.service(t, "one", at("10.96.0.5"), 0)
	n.must(func() error {
		backend, err := nftables.New(nftables.Options{})
		if err != nil {
			return err
		}
		settings := proxy.Config{Client: n.client, NodeName: "here", Backend: backend, Logger: slog.New(slog.DiscardHandler)}
		before, err := nftList()
		if err != nil {
			return err
		}
		p, err := proxy.New(settings)
		if err != nil {
			return err
		}
		printed, err := p.Print(t.Context())
		if err != nil {
			return err
		}
		if !strings.Contains(printed, "add element ip skiff-proxy service-ips { 10.96.0.5 . tcp . 80 : goto ") {
			t.Errorf("printed:\n%s", printed)
		}
		if after, err := nftList(); err != nil || after != before {
			return fmt.Errorf("a dry run changed the kernel (%v):\n%s", err, after)
		}
		// What is printed is what nft reads.
		file := filepath.Join(t.TempDir(), "rules.nft")
		if err := os.WriteFile(file, []byte(printed), 0o600); err != nil {
			return err
		}
		if err := nft("--check", "--file", file); err != nil {
			return err
		}
		if p, err = proxy.New(settings); err != nil {
			return err
		}
		return p.Once(t.Context())
	})
	n.pods[1].eventually(t, "tcp", "10.96.0.5:80", "pod0")
}

func TestDNSAnswersOnItsServiceAddress(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- n.in(func() error {
			s, err := dns.NewServer(dns.Config{Address: netip.MustParseAddr("10.96.0.10"), Domain: "cluster.local", Logger: slog.New(slog.DiscardHandler)}, noServices{})
			if err != nil {
				return err
			}
			s.Ready()
			return s.Run(ctx)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	query := new(miekg.Msg)
	query.SetQuestion("dns-version.cluster.local.", miekg.TypeTXT)
	testenv.Eventually(t, 10*time.Second, func() bool {
		var reply *miekg.Msg
		err := n.pods[0].in(func() (err error) {
			reply, _, err = (&miekg.Client{Timeout: time.Second}).Exchange(query, "10.96.0.10:53")
			return err
		})
		return err == nil && len(reply.Answer) == 1
	}, "no answer from the service address")
}

// noServices is an empty cluster.
type noServices struct{}

func (noServices) Service(_, _ string) *corev1.Service             { return nil }
func (noServices) Slices(_, _ string) []*discoveryv1.EndpointSlice { return nil }
func (noServices) Namespace(string) bool                           { return false }

func (noServices) ServicesAt(netip.Addr) []*corev1.Service          { return nil }
func (noServices) SlicesAt(netip.Addr) []*discoveryv1.EndpointSlice { return nil }

func nft(arguments ...string) error {
	if output, err := exec.Command("nft", arguments...).CombinedOutput(); err != nil {
		return fmt.Errorf("nft %s: %w: %s", strings.Join(arguments, " "), err, output)
	}
	return nil
}

func nftList() (string, error) {
	output, err := exec.Command("nft", "list", "ruleset").Output()
	return string(output), err
}
