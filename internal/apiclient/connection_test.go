package apiclient

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/skiff-run/skiff/internal/operator"
)

// kubeconfig is one for a server of the test.
func kubeconfig(t *testing.T, server string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.conf")
	if err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"skiff": {Server: server}}, AuthInfos: map[string]*clientcmdapi.AuthInfo{"node": {}},
		Contexts: map[string]*clientcmdapi.Context{"node": {Cluster: "skiff", AuthInfo: "node"}}, CurrentContext: "node",
	}, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, path string) *Connection {
	t.Helper()
	c, err := Load(Options{Kubeconfig: path, UserAgent: "test", Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAddressesAreLearntAndRemembered(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != operator.ServersPath {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(operator.Servers{Addresses: []string{"192.0.2.9:6443", "192.0.2.8:6443"}})
	}))
	t.Cleanup(server.Close)
	path := kubeconfig(t, server.URL)
	own := strings.TrimPrefix(server.URL, "http://")
	want := []string{own, "192.0.2.8:6443", "192.0.2.9:6443"}
	c := load(t, path)
	client, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.learn(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	if got := c.dialer.Addresses(); !slices.Equal(got, want) {
		t.Errorf("learnt %v, want %v", got, want)
	}
	if info, err := os.Stat(filepath.Join(filepath.Dir(path), serversFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("remembered in %v, %v", info, err)
	}
	if got := load(t, path).dialer.Addresses(); !slices.Equal(got, want) {
		t.Errorf("after a restart %v, want %v", got, want)
	}
}

func TestAnAPIServerThatCannotWriteIsLeft(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	var asked atomic.Int32
	server := func(code func() int) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet {
				asked.Add(1)
				w.WriteHeader(code())
			}
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	first := server(func() int {
		if broken.Load() {
			return http.StatusServiceUnavailable
		}
		return http.StatusConflict
	})
	second := server(func() int { return http.StatusOK })
	c := load(t, kubeconfig(t, first))
	c.dialer.Set([]string{strings.TrimPrefix(first, "http://"), strings.TrimPrefix(second, "http://")})
	client, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	send := func(method string) int {
		request, err := http.NewRequestWithContext(t.Context(), method, first+"/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}
	for range 3 {
		if got := send(http.MethodPut); got != http.StatusConflict {
			t.Fatalf("a conflict made it leave: %d", got)
		}
	}
	broken.Store(true)
	for range strikes {
		// What is read from memory in between changes nothing.
		if got := send(http.MethodPut); got != http.StatusServiceUnavailable {
			t.Fatalf("got %d", got)
		}
		send(http.MethodGet)
	}
	if got := send(http.MethodPut); got != http.StatusOK {
		t.Errorf("after %d failures in a row the answer is %d", strikes, got)
	}
}
