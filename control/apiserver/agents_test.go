package apiserver

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/skiff-run/skiff/internal/pki"
)

func TestTheWayToAgentsFollowsReplacedAuthoritiesAndCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	authority, err := pki.EnsureControl(pki.Control{Dir: dir, ServiceCIDR: "10.96.0.0/16", ClusterDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.EnsureAgent(dir, "n1", []net.IP{net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	agent, err := pki.LoadIdentity(filepath.Join(dir, "agent-server.crt"), filepath.Join(dir, "agent-server.key"), filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		certificate, err := agent.Certificate()
		if err != nil {
			return nil, err
		}
		return &tls.Config{Certificates: []tls.Certificate{*certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: agent.Roots()}, nil
	}}
	server.StartTLS()
	defer server.Close()
	s := &Server{config: Config{PKIDir: dir}}
	agents, err := s.agents()
	if err != nil {
		t.Fatal(err)
	}
	ask := func(step string) {
		t.Helper()
		for _, transport := range []http.RoundTripper{agents.Transport, agents.Unverified} {
			client := &http.Client{Transport: transport}
			response, err := client.Get(server.URL)
			if err != nil {
				t.Errorf("%s: %v", step, err)
				return
			}
			response.Body.Close()
			// The next step's connection must be a new one.
			client.CloseIdleConnections()
		}
	}
	ask("at first")
	for _, step := range []struct {
		name string
		take func(dir, name string) error
	}{{"introduced", pki.Introduce}, {"adopted", pki.Adopt}, {"retired", pki.Retire}} {
		if err := step.take(dir, "ca"); err != nil {
			t.Fatal(err)
		}
		if _, err := pki.RenewDue(dir); err != nil {
			t.Fatal(err)
		}
		ask(step.name)
	}
}
