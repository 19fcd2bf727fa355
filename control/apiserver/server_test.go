package apiserver

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/skiff-run/skiff/internal/pki"
	"github.com/skiff-run/skiff/raftstore"
)

// running is a whole API server in this process, and how an administrator
// reaches it over TLS.
type running struct {
	*Server
	admin *rest.Config
	store *raftstore.Store
	// dir holds pki/ and store/.
	dir string
	// stop ends server and store and returns what the server's Run returned.
	stop func() error
}

// serve starts a server in dir, which may hold an earlier one's state. The test
// fails if somebody changes a shared object.
func serve(t *testing.T, dir string, change func(*Config)) *running {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	authority, err := pki.EnsureControl(pki.Control{Dir: filepath.Join(dir, "pki"), ServiceCIDR: "10.96.0.0/16", ClusterDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(t.TempDir(), "admin.conf")
	if err := authority.EnsureKubeconfig(kubeconfig, "test", "https://"+listener.Addr().String(), "kubernetes-admin", pki.AdminGroup); err != nil {
		t.Fatal(err)
	}
	admin, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	admin.QPS = -1
	store, err := raftstore.Open(t.Context(), raftstore.Options{Dir: filepath.Join(dir, "store"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	config := Config{
		Store: store, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), PKIDir: filepath.Join(dir, "pki"), Listener: listener,
		AdvertiseAddress: netip.MustParseAddr("192.0.2.1"), AdvertisePort: port, ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"),
		NodePorts: *utilnet.ParsePortRangeOrDie("30000-32767"), ClusterDomain: "cluster.local", AgentPort: 10250, DetectMutations: true,
	}
	if change != nil {
		change(&config)
	}
	server, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	r := &running{Server: server, admin: admin, store: store, dir: dir}
	stopped := false
	r.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		server.hub.CheckMutations()
		cancel()
		err := <-ended
		select {
		case mutation := <-server.mutated:
			t.Error(mutation)
		default:
		}
		if closeErr := store.Close(); closeErr != nil {
			t.Error(closeErr)
		}
		return err
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("the server ended with: %v", err)
		}
	})
	waiting, done := context.WithTimeout(t.Context(), time.Minute)
	defer done()
	if err := server.WaitBootstrapped(waiting); err != nil {
		t.Fatal(err)
	}
	return r
}
