// Command dns measures the cluster's name server beside Debian's dnsmasq: the
// same names, the same clients, one after the other on one machine. Both are
// processes of their own and answer from memory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	miekg "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/skiff-run/skiff/proxy/dns"
)

const (
	skiffPort, dnsmasqPort = "5391", "5392"
	names                  = 1000
)

func main() {
	serveOnly := flag.Bool("serve", false, "be the server that is measured")
	clients := flag.Int("clients", 32, "questions on their way at once")
	each := flag.Duration("each", 5*time.Second, "how long each server is asked, three times in turn")
	flag.Parse()
	var err error
	if *serveOnly {
		err = serve()
	} else {
		err = measure(*clients, *each)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dns:", err)
		os.Exit(1)
	}
}

func name(i int) string    { return fmt.Sprintf("service-%d.default.svc.cluster.local.", i) }
func address(i int) string { return fmt.Sprintf("10.96.%d.%d", 1+i/250, 1+i%250) }

// cluster is a source of as many services as are measured.
type cluster struct{ services map[string]*corev1.Service }

func (c cluster) Service(_, name string) *corev1.Service             { return c.services[name] }
func (c cluster) Slices(string, string) []*discoveryv1.EndpointSlice { return nil }
func (c cluster) Namespace(string) bool                              { return true }
func (c cluster) ServicesAt(netip.Addr) []*corev1.Service            { return nil }
func (c cluster) SlicesAt(netip.Addr) []*discoveryv1.EndpointSlice   { return nil }

func serve() error {
	all := cluster{map[string]*corev1.Service{}}
	for i := range names {
		s := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: address(i), ClusterIPs: []string{address(i)}}}
		all.services[fmt.Sprintf("service-%d", i)] = s
	}
	server, err := dns.NewServer(dns.Config{Address: netip.MustParseAddr("127.0.0.1"), Domain: "cluster.local", Upstreams: []string{"127.0.0.1:1"}, Logger: slog.New(slog.DiscardHandler)}, all)
	if err != nil {
		return err
	}
	server.Ready()
	return (&miekg.Server{Addr: "127.0.0.1:" + skiffPort, Net: "udp", Handler: server, UDPSize: 4096}).ListenAndServe()
}

// start runs a server until the returned function is called.
func start(port, program string, arguments ...string) (stop func(), err error) {
	command := exec.Command(program, arguments...)
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	stop = func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		query := new(miekg.Msg)
		query.SetQuestion(name(0), miekg.TypeA)
		reply, _, err := (&miekg.Client{Timeout: 200 * time.Millisecond}).Exchange(query, "127.0.0.1:"+port)
		if err == nil && len(reply.Answer) == 1 {
			return stop, nil
		}
		if time.Now().After(deadline) {
			stop()
			return nil, fmt.Errorf("%s does not answer: %w", program, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func measure(clients int, each time.Duration) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "skiff-bench-dns-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var hosts strings.Builder
	for i := range names {
		fmt.Fprintf(&hosts, "%s %s\n", address(i), strings.TrimSuffix(name(i), "."))
	}
	file := filepath.Join(dir, "hosts")
	if err := os.WriteFile(file, []byte(hosts.String()), 0o644); err != nil { // it gives up root before it reads
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	stopSkiff, err := start(skiffPort, self, "--serve")
	if err != nil {
		return err
	}
	defer stopSkiff()
	stopOther, err := start(dnsmasqPort, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file",
		"--listen-address=127.0.0.1", "--bind-interfaces", "--port="+dnsmasqPort, "--addn-hosts="+file, "--local-ttl=30")
	if err != nil {
		return err
	}
	defer stopOther()
	for _, at := range []int{1, clients} {
		results := map[string][]result{}
		for range 3 {
			for _, server := range []struct{ name, port string }{{"skiff", skiffPort}, {"dnsmasq", dnsmasqPort}} {
				r, err := load(server.port, at, each)
				if err != nil {
					return fmt.Errorf("%s: %w", server.name, err)
				}
				results[server.name] = append(results[server.name], r)
			}
		}
		fmt.Printf("%d at once\n", at)
		for _, server := range []string{"skiff", "dnsmasq"} {
			best := slices.MaxFunc(results[server], func(a, b result) int { return int(a.perSecond - b.perSecond) })
			fmt.Printf("  %-8s %8.0f queries/s   p50 %6s   p99 %6s\n", server, best.perSecond, best.p50.Round(time.Microsecond), best.p99.Round(time.Microsecond))
		}
	}
	return nil
}

type result struct {
	perSecond float64
	p50, p99  time.Duration
}

// load asks from as many sockets as given, each one question after the other.
func load(port string, clients int, length time.Duration) (result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	var mu sync.Mutex // guards what follows
	var all []time.Duration
	var failure error
	var running sync.WaitGroup
	begin := time.Now()
	for range clients {
		running.Go(func() {
			took, err := one(ctx, port)
			mu.Lock()
			defer mu.Unlock()
			all, failure = append(all, took...), errors.Join(failure, err)
		})
	}
	running.Wait()
	seconds := time.Since(begin).Seconds()
	if failure != nil || len(all) == 0 {
		return result{}, errors.Join(failure, ctx.Err())
	}
	slices.Sort(all)
	return result{float64(len(all)) / seconds, all[len(all)/2], all[len(all)*99/100]}, nil
}

func one(ctx context.Context, port string) ([]time.Duration, error) {
	connection, err := net.Dial("udp", "127.0.0.1:"+port)
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	var took []time.Duration
	buffer := make([]byte, 1500)
	for ctx.Err() == nil {
		i := rand.IntN(names)
		query := new(miekg.Msg)
		query.SetQuestion(name(i), miekg.TypeA)
		packet, err := query.Pack()
		if err != nil {
			return nil, err
		}
		begin := time.Now()
		if err := connection.SetDeadline(begin.Add(2 * time.Second)); err != nil {
			return nil, err
		}
		if _, err := connection.Write(packet); err != nil {
			return nil, err
		}
		n, err := connection.Read(buffer)
		if err != nil {
			return nil, err
		}
		took = append(took, time.Since(begin))
		var reply miekg.Msg
		if err := reply.Unpack(buffer[:n]); err != nil || reply.Id != query.Id || len(reply.Answer) != 1 {
			return nil, fmt.Errorf("a wrong answer: %v, %v", reply.String(), err)
		}
	}
	return took, nil
}
