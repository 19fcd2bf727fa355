package dns

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// cluster is a Source of fixed objects.
type cluster struct {
	services []*corev1.Service
	slices   []*discoveryv1.EndpointSlice
}

func (c *cluster) Service(namespace, name string) *corev1.Service {
	for _, s := range c.services {
		if s.Namespace == namespace && s.Name == name {
			return s
		}
	}
	return nil
}
func (c *cluster) Namespace(name string) bool { return name == "default" || name == "quiet" }
func (c *cluster) ServicesAt(address netip.Addr) []*corev1.Service {
	var out []*corev1.Service
	for _, s := range c.services {
		if slices.Contains(s.Spec.ClusterIPs, address.String()) {
			out = append(out, s)
		}
	}
	return out
}
func (c *cluster) SlicesAt(netip.Addr) []*discoveryv1.EndpointSlice { return c.slices }
func (c *cluster) Slices(namespace, service string) []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	for _, s := range c.slices {
		if s.Namespace == namespace && s.Labels[discoveryv1.LabelServiceName] == service {
			out = append(out, s)
		}
	}
	return out
}

func named(namespace, name string, spec corev1.ServiceSpec) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}
}

func example() *cluster {
	http := []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}
	return &cluster{
		services: []*corev1.Service{
			named("default", "web", corev1.ServiceSpec{ClusterIP: "10.96.0.5", ClusterIPs: []string{"10.96.0.5", "fd00::5"}, Ports: http}),
			named("default", "db", corev1.ServiceSpec{ClusterIP: "None", ClusterIPs: []string{"None"}, Ports: http}),
			named("default", "pair", corev1.ServiceSpec{ClusterIP: "None", ClusterIPs: []string{"None"}, Ports: http}),
			named("default", "early", corev1.ServiceSpec{ClusterIP: "None", PublishNotReadyAddresses: true}),
			named("default", "mail", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "mail.example.org"}),
			named("default", "alias", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "web.default.svc.cluster.local"}),
			named("default", "circle", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "circle.default.svc.cluster.local"}),
		},
		slices: []*discoveryv1.EndpointSlice{
			endpointSlice("db", discoveryv1.Endpoint{Addresses: []string{"10.244.0.2"}, Hostname: ptr.To("db-0")},
				discoveryv1.Endpoint{Addresses: []string{"10.244.0.3"}},
				discoveryv1.Endpoint{Addresses: []string{"10.244.0.4"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false)}}),
			endpointSlice("pair", discoveryv1.Endpoint{Addresses: []string{"10.244.0.7"}, Hostname: ptr.To("pair-0")}),
			sixth(endpointSlice("pair", discoveryv1.Endpoint{Addresses: []string{"fd00::7"}, Hostname: ptr.To("pair-0")})),
			endpointSlice("early", discoveryv1.Endpoint{Addresses: []string{"10.244.0.4"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false)}}),
		},
	}
}

func endpointSlice(service string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: endpoints,
		Ports: []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](8080), Protocol: ptr.To(corev1.ProtocolTCP)}},
	}
}

func sixth(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	s.AddressType = discoveryv1.AddressTypeIPv6
	return s
}

func newTestServer(t *testing.T, upstreams ...string) *Server {
	t.Helper()
	empty := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(Config{
		Address: netip.MustParseAddr("10.96.0.10"), Domain: "cluster.local", Upstreams: upstreams, ResolvConf: empty, Logger: slog.New(slog.DiscardHandler),
	}, example())
	if err != nil {
		t.Fatal(err)
	}
	s.Ready()
	return s
}

func ask(s *Server, name string, qtype uint16) *miekg.Msg {
	query := new(miekg.Msg)
	query.SetQuestion(miekg.Fqdn(name), qtype)
	return s.answer(query)
}

// short prints records without class and TTL, sorted.
func short(records []miekg.RR) string {
	var lines []string
	for _, r := range records {
		fields := strings.Fields(r.String())
		lines = append(lines, strings.Join(append(fields[:1:1], fields[3:]...), " "))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestNamesOfTheClusterFollowTheSpecification(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	const svc = ".default.svc.cluster.local."
	for name, tc := range map[string]struct {
		question string
		qtype    uint16
		rcode    int
		want     string
	}{
		"a service":                             {"web" + svc, miekg.TypeA, 0, "web" + svc + " A 10.96.0.5"},
		"its IPv6 address":                      {"web" + svc, miekg.TypeAAAA, 0, "web" + svc + " AAAA fd00::5"},
		"the case of the question is kept":      {"WEB.Default.svc.cluster.local.", miekg.TypeA, 0, "WEB.Default.svc.cluster.local. A 10.96.0.5"},
		"a type it does not have":               {"web" + svc, miekg.TypeMX, 0, ""},
		"a port":                                {"_http._tcp.web" + svc, miekg.TypeSRV, 0, "_http._tcp.web" + svc + " SRV 0 100 80 web" + svc},
		"a port it does not have":               {"_ftp._tcp.web" + svc, miekg.TypeSRV, miekg.RcodeNameError, ""},
		"headless: the ready endpoints":         {"db" + svc, miekg.TypeA, 0, "db" + svc + " A 10.244.0.2\ndb" + svc + " A 10.244.0.3"},
		"headless: an endpoint by host name":    {"db-0.db" + svc, miekg.TypeA, 0, "db-0.db" + svc + " A 10.244.0.2"},
		"headless: an endpoint by address":      {"10-244-0-3.db" + svc, miekg.TypeA, 0, "10-244-0-3.db" + svc + " A 10.244.0.3"},
		"headless: one that is not ready":       {"10-244-0-4.db" + svc, miekg.TypeA, miekg.RcodeNameError, ""},
		"headless: a port":                      {"_http._tcp.db" + svc, miekg.TypeSRV, 0, "_http._tcp.db" + svc + " SRV 0 50 8080 10-244-0-3.db" + svc + "\n_http._tcp.db" + svc + " SRV 0 50 8080 db-0.db" + svc},
		"headless that publishes unready":       {"early" + svc, miekg.TypeA, 0, "early" + svc + " A 10.244.0.4"},
		"a service that is not there":           {"nope" + svc, miekg.TypeA, miekg.RcodeNameError, ""},
		"below a service with an address":       {"x.web" + svc, miekg.TypeA, miekg.RcodeNameError, ""},
		"below a port's protocol":               {"_tcp.web" + svc, miekg.TypeA, 0, ""},
		"both families: the first":              {"pair-0.pair" + svc, miekg.TypeA, 0, "pair-0.pair" + svc + " A 10.244.0.7"},
		"both families: the second":             {"pair-0.pair" + svc, miekg.TypeAAAA, 0, "pair-0.pair" + svc + " AAAA fd00::7"},
		"both families: a port once":            {"_http._tcp.pair" + svc, miekg.TypeSRV, 0, "_http._tcp.pair" + svc + " SRV 0 100 8080 pair-0.pair" + svc},
		"a pod of a namespace without services": {"10-244-0-9.quiet.pod.cluster.local.", miekg.TypeA, 0, "10-244-0-9.quiet.pod.cluster.local. A 10.244.0.9"},
		"a pod of no namespace":                 {"10-244-0-9.empty.pod.cluster.local.", miekg.TypeA, miekg.RcodeNameError, ""},
		"a pod by IPv6 address":                 {"fd00--9.default.pod.cluster.local.", miekg.TypeAAAA, 0, "fd00--9.default.pod.cluster.local. AAAA fd00::9"},
		"a namespace with services":             {"default.svc.cluster.local.", miekg.TypeA, 0, ""},
		"a namespace without":                   {"empty.svc.cluster.local.", miekg.TypeA, miekg.RcodeNameError, ""},
		"a pod":                                 {"10-244-0-9.default.pod.cluster.local.", miekg.TypeA, 0, "10-244-0-9.default.pod.cluster.local. A 10.244.0.9"},
		"a pod with a broken address":           {"10-244-0.default.pod.cluster.local.", miekg.TypeA, miekg.RcodeNameError, ""},
		"the version":                           {"dns-version.cluster.local.", miekg.TypeTXT, 0, "dns-version.cluster.local. TXT \"1.1.0\""},
		"an alias within the cluster":           {"alias" + svc, miekg.TypeA, 0, "alias" + svc + " CNAME web" + svc + "\nweb" + svc + " A 10.96.0.5"},
		"a circle of aliases":                   {"circle" + svc, miekg.TypeA, miekg.RcodeServerFailure, "*"},
		"a service by address":                  {"5.0.96.10.in-addr.arpa.", miekg.TypePTR, 0, "5.0.96.10.in-addr.arpa. PTR web" + svc},
		"an endpoint by address":                {"2.0.244.10.in-addr.arpa.", miekg.TypePTR, 0, "2.0.244.10.in-addr.arpa. PTR db-0.db" + svc},
		"a service by IPv6 address":             {"5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", miekg.TypePTR, 0, "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. PTR web" + svc},
		"the name server by address":            {"10.0.96.10.in-addr.arpa.", miekg.TypePTR, 0, "10.0.96.10.in-addr.arpa. PTR kube-dns.kube-system.svc.cluster.local."},
		"another name without any upstream":     {"example.org.", miekg.TypeA, miekg.RcodeServerFailure, ""},
		"a name that only ends like the zone":   {"mycluster.local.", miekg.TypeA, miekg.RcodeServerFailure, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reply := ask(s, tc.question, tc.qtype)
			if reply.Rcode != tc.rcode {
				t.Errorf("got %s, want %s", miekg.RcodeToString[reply.Rcode], miekg.RcodeToString[tc.rcode])
			}
			if got := short(reply.Answer); tc.want != "*" && got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
			if reply.Authoritative && len(reply.Answer) == 0 && reply.Rcode != miekg.RcodeServerFailure && len(reply.Ns) != 1 {
				t.Error("a negative answer lacks the SOA")
			}
		})
	}
}

func TestNamesAreNotDeniedBeforeTheStateIsComplete(t *testing.T) {
	t.Parallel()
	s := newTestServer(t)
	s.ready.Store(false)
	if reply := ask(s, "nope.default.svc.cluster.local", miekg.TypeA); reply.Rcode != miekg.RcodeServerFailure {
		t.Errorf("got %s", miekg.RcodeToString[reply.Rcode])
	}
}

// listening starts a real server on loopback that counts the questions it gets.
func listening(t *testing.T, large bool) (string, func() int) {
	t.Helper()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", packets.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 100)
	handler := miekg.HandlerFunc(func(w miekg.ResponseWriter, query *miekg.Msg) {
		asked <- struct{}{}
		reply := new(miekg.Msg)
		reply.SetReply(query)
		n := 1
		if large {
			n = 100
		}
		for i := range n {
			reply.Answer = append(reply.Answer, &miekg.A{Hdr: header(query.Question[0].Name, miekg.TypeA), A: net.IPv4(192, 0, 2, byte(i))})
		}
		if w.RemoteAddr().Network() == "udp" {
			reply.Truncate(miekg.MinMsgSize)
		}
		_ = w.WriteMsg(reply)
	})
	for _, server := range []*miekg.Server{{PacketConn: packets, Handler: handler}, {Listener: listener, Handler: handler}} {
		started, ended := make(chan struct{}), make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(ended)
			_ = server.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() { _ = server.Shutdown(); <-ended })
	}
	return packets.LocalAddr().String(), func() int { return len(asked) }
}

func TestOtherNamesAreForwardedAndRemembered(t *testing.T) {
	t.Parallel()
	address, asked := listening(t, false)
	s := newTestServer(t, address)
	for range 3 {
		if got := short(ask(s, "www.example.org", miekg.TypeA).Answer); got != "www.example.org. A 192.0.2.0" {
			t.Fatalf("got %q", got)
		}
	}
	if asked() != 1 {
		t.Errorf("asked %d times, want 1", asked())
	}
	if got := short(ask(s, "mail.default.svc.cluster.local", miekg.TypeA).Answer); !strings.Contains(got, "CNAME mail.example.org.") || !strings.Contains(got, "mail.example.org. A 192.0.2.0") {
		t.Errorf("an external name: got %q", got)
	}
}

func TestAServerThatIsAwayIsPassedOver(t *testing.T) {
	t.Parallel()
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := gone.LocalAddr().String()
	gone.Close()
	address, _ := listening(t, false)
	if got := short(ask(newTestServer(t, dead, address), "example.org", miekg.TypeA).Answer); got != "example.org. A 192.0.2.0" {
		t.Errorf("got %q", got)
	}
}

func TestLargeAnswersComeWholeOverTCPAndTruncatedOverUDP(t *testing.T) {
	t.Parallel()
	address, _ := listening(t, true)
	s := newTestServer(t, address)
	front, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", front.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []*miekg.Server{{PacketConn: front, Handler: s}, {Listener: listener, Handler: s}} {
		ended := make(chan struct{})
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(ended); _ = server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = server.Shutdown(); <-ended })
	}
	query := new(miekg.Msg)
	query.SetQuestion("big.example.org.", miekg.TypeA)
	reply, _, err := (&miekg.Client{Timeout: 10 * time.Second}).Exchange(query, front.LocalAddr().String())
	if err != nil || !reply.Truncated {
		t.Errorf("UDP: %v, %v", reply, err)
	}
	reply, _, err = (&miekg.Client{Net: "tcp", Timeout: 10 * time.Second}).Exchange(query, front.LocalAddr().String())
	if err != nil || len(reply.Answer) != 100 {
		t.Errorf("TCP: %v, %v", reply, err)
	}
}

func TestOurOwnAddressIsNeverAnUpstream(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("nameserver 10.96.0.10\nnameserver 192.0.2.53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := newUpstreams(Config{Address: netip.MustParseAddr("10.96.0.10"), ResolvConf: path, Logger: slog.New(slog.DiscardHandler)})
	if got := u.inOrder(); len(got) != 1 || got[0].address != "192.0.2.53:53" {
		t.Errorf("got %v", got)
	}
}
