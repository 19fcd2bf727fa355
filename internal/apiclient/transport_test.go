package apiclient

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/skiff-run/skiff/internal/pki"
	"github.com/skiff-run/skiff/internal/testenv"
)

// control is an API server that answers with the serial number of the
// certificate it was shown, and a stream at /watch that repeats what it is told.
type control struct {
	authority *pki.Authority
	server    *httptest.Server
	events    chan string
	dir       string
}

func newControl(t *testing.T) *control {
	t.Helper()
	c := &control{events: make(chan string), dir: t.TempDir()}
	var err error
	if c.authority, err = pki.EnsureControl(pki.Control{Dir: filepath.Join(c.dir, "pki"), ServiceCIDR: "10.96.0.0/16", ClusterDomain: "cluster.local"}); err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(c.dir, "pki", name) }
	identity, err := pki.LoadIdentity(file("apiserver.crt"), file("apiserver.key"), file("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/serial", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Proto, " ", r.TLS.PeerCertificates[0].SerialNumber)
	})
	mux.HandleFunc("/watch", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		for {
			_ = http.NewResponseController(w).Flush()
			select {
			case event := <-c.events:
				fmt.Fprintln(w, event)
			case <-r.Context().Done():
				return
			}
		}
	})
	c.server = httptest.NewUnstartedServer(mux)
	c.server.EnableHTTP2 = true
	c.server.TLS = &tls.Config{NextProtos: []string{"h2"}, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		certificate, err := identity.Certificate()
		return &tls.Config{Certificates: []tls.Certificate{*certificate}, ClientCAs: identity.Roots(), ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2"}}, err
	}}
	c.server.StartTLS()
	t.Cleanup(c.server.Close)
	return c
}

func (c *control) kubeconfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(c.dir, "agent.conf")
	if err := c.authority.EnsureKubeconfig(path, "skiff", c.server.URL, "system:node:n1", "system:nodes"); err != nil {
		t.Fatal(err)
	}
	return path
}

func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestARenewedCertificateAndReplacedAuthoritiesAreTakenUpWhileAWatchGoesOn(t *testing.T) {
	t.Parallel()
	control := newControl(t)
	c, err := Load(Options{Kubeconfig: control.kubeconfig(t), UserAgent: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	first := get(t, client, control.server.URL+"/serial")
	if first[:len("HTTP/2.0")] != "HTTP/2.0" {
		t.Errorf("speaks %s", first)
	}
	watch, err := client.Get(control.server.URL + "/watch")
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Body.Close()
	lines := bufio.NewScanner(watch.Body)
	// A new authority from the first step to the last, and what it signs.
	for _, step := range []func(dir, name string) error{pki.Introduce, pki.Adopt, pki.Retire} {
		if err := step(filepath.Join(control.dir, "pki"), "ca"); err != nil {
			t.Fatal(err)
		}
		if _, err := pki.RenewDue(filepath.Join(control.dir, "pki")); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, time.Minute, func() bool {
			now, err := pki.StampOf(c.kubeconfig)
			if err != nil {
				t.Fatal(err)
			}
			get(t, client, control.server.URL+"/serial")
			return c.Config.Transport.(*judge).next.(*transport).credentials.(*kubeconfigFile).seen(now)
		}, "the kubeconfig is not read again")
	}
	if last := get(t, client, control.server.URL+"/serial"); last == first {
		t.Error("the first certificate is still shown")
	}
	control.events <- "still here"
	if !lines.Scan() || lines.Text() != "still here" {
		t.Errorf("the watch ended: %q, %v", lines.Text(), lines.Err())
	}
}

// seen says whether the file's content with that stamp has been read.
func (k *kubeconfigFile) seen(now pki.Stamp) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stamps[k.path] == now
}

func TestAServerOfAnotherClusterIsNotBelieved(t *testing.T) {
	t.Parallel()
	ours, other := newControl(t), newControl(t)
	c, err := Load(Options{Kubeconfig: ours.kubeconfig(t), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c.dialer.patience = 0
	c.dialer.Set([]string{other.server.Listener.Addr().String()})
	client, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	if response, err := client.Get(ours.server.URL + "/serial"); err == nil {
		response.Body.Close()
		t.Error("a server of another authority was believed")
	}
}

func TestAPausedServerIsLeftForTheNext(t *testing.T) {
	t.Parallel()
	control := newControl(t)
	paused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer paused.Close() // it accepts nothing: the kernel does
	c, err := Load(Options{Kubeconfig: control.kubeconfig(t), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c.dialer.Set([]string{paused.Addr().String(), control.server.Listener.Addr().String()})
	c.dialer.mu.Lock()
	c.dialer.current = paused.Addr().String()
	c.dialer.mu.Unlock()
	client, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	get(t, client, control.server.URL+"/serial")
}
