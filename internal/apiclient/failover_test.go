package apiclient

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/skiff-run/skiff/internal/pki"
	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/host"
)

// machines are API servers on hosts of their own and a daemon on another, which
// uses the first.
type machines struct {
	network    *host.Network
	first      *host.Host
	client     *http.Client
	connection *Connection
}

func newMachines(t testing.TB, name string) *machines {
	t.Helper()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "bash", "nsenter", "ip", "nft")
	network, err := host.New(name, filepath.Join(t.TempDir(), "hosts"), host.DefaultSubnet, host.WithUs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := network.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	authority, err := pki.EnsureControl(pki.Control{Dir: filepath.Join(dir, "pki"), ServiceCIDR: "10.96.0.0/16", ClusterDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "pki/apiserver.crt"), filepath.Join(dir, "pki/apiserver.key"))
	if err != nil {
		t.Fatal(err)
	}
	var addresses []string
	m := &machines{network: network}
	var daemon *host.Host
	for _, name := range []string{"one", "two", "daemon"} {
		h, err := network.Add(name)
		if err == nil {
			err = h.Boot()
		}
		if err != nil {
			t.Fatal(err)
		}
		if daemon = h; name == "daemon" {
			break
		}
		if m.first == nil {
			m.first = h
		}
		listener, err := h.Listen(t.Context(), "tcp", ":6443")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/watch" {
					_ = http.NewResponseController(w).Flush()
					<-r.Context().Done()
				}
			}),
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		}
		go func() { _ = server.ServeTLS(listener, "", "") }()
		t.Cleanup(func() { _ = server.Close() })
		addresses = append(addresses, net.JoinHostPort(h.Address.String(), "6443"))
	}
	kubeconfig := filepath.Join(dir, "agent.conf")
	if err := authority.EnsureKubeconfig(kubeconfig, "skiff", "https://"+addresses[0], "system:node:n1", "system:nodes"); err != nil {
		t.Fatal(err)
	}
	if m.connection, err = Load(Options{Kubeconfig: kubeconfig, Addresses: addresses, UserAgent: "test", Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	d := m.connection.dialer
	d.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		conn, err := daemon.Dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err == nil {
			err = d.limitSilence("", "", raw)
		}
		return conn, err
	}
	if m.client, err = rest.HTTPClientFor(m.connection.Config); err != nil {
		t.Fatal(err)
	}
	return m
}

// ask says whether the API answers.
func (m *machines) ask(path string) (*http.Response, error) {
	return m.client.Get(m.connection.Config.Host + path)
}

// lose breaks the first machine and returns how long it takes until the watch
// has ended and a request is answered by the other.
func (m *machines) lose(t testing.TB, breaks func() error) time.Duration {
	t.Helper()
	// A watch on the other machine would not end.
	limited, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(limited, http.MethodGet, m.connection.Config.Host+"/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	watch, err := m.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Body.Close()
	begin := time.Now()
	if err := breaks(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, watch.Body); err == nil {
		t.Error("the watch ended as if all were well")
	}
	response, err := m.ask("/healthz")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	took := time.Since(begin)
	if got := m.connection.dialer.current; got == net.JoinHostPort(m.first.Address.String(), "6443") {
		t.Errorf("still at %s", got)
	}
	return took
}

func TestAMachineWhoseCableIsPulledIsLeft(t *testing.T) {
	t.Parallel()
	m := newMachines(t, "certfail")
	t.Logf("moved within %s", m.lose(t, func() error { return m.network.Unplug(m.first) }))
}

// back returns once the first machine is in use.
func (m *machines) back(t testing.TB) {
	t.Helper()
	first := net.JoinHostPort(m.first.Address.String(), "6443")
	testenv.Eventually(t, time.Minute, func() bool {
		m.connection.dialer.Abandon()
		m.connection.dialer.mu.Lock()
		m.connection.dialer.current = first
		m.connection.dialer.mu.Unlock()
		response, err := m.ask("/healthz")
		if err != nil {
			return false
		}
		response.Body.Close()
		m.connection.dialer.mu.Lock()
		defer m.connection.dialer.mu.Unlock()
		return m.connection.dialer.current == first
	}, "the first machine is not back")
}

// settle lets the kernel learn how fast the way is: the neighbours found each
// other only with the first packets, and a connection is older than that in life.
func (m *machines) settle(t testing.TB) {
	t.Helper()
	for range 60 {
		response, err := m.ask("/healthz")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
	}
}

func BenchmarkMovingToAnotherAPIServerWhenACableIsPulled(b *testing.B) {
	m := newMachines(b, "certfailb")
	var longest time.Duration
	for b.Loop() {
		b.StopTimer()
		if err := m.network.Plug(m.first); err != nil {
			b.Fatal(err)
		}
		m.back(b)
		m.settle(b)
		b.StartTimer()
		longest = max(longest, m.lose(b, func() error { return m.network.Unplug(m.first) }))
	}
	b.ReportMetric(float64(longest.Milliseconds()), "ms-longest")
}
