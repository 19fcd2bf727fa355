package apiserver

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"

	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/internal/pki"
)

// agents is how logs, exec and port-forward reach the agents.
func (s *Server) agents() (registry.Agents, error) {
	file := func(name string) string { return filepath.Join(s.config.PKIDir, name) }
	identity, err := pki.LoadIdentity(file("apiserver-kubelet-client.crt"), file("apiserver-kubelet-client.key"), file("ca.crt"))
	if err != nil {
		return registry.Agents{}, fmt.Errorf("make transport to agents: %w", err)
	}
	return registry.Agents{
		Transport: &agentTransport{identity: identity}, Unverified: &agentTransport{identity: identity, unverified: true}, Port: s.config.AgentPort,
	}, nil
}

// agentTransport shows and believes what the files of an identity hold now.
type agentTransport struct {
	identity   *pki.Identity
	unverified bool

	// mu guards what follows.
	mu      sync.Mutex
	roots   *x509.CertPool
	current *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (t *agentTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	return t.transport().RoundTrip(request)
}

// WrappedRoundTripper implements the interface by which a stream finds the TLS
// configuration for the connection it dials itself.
func (t *agentTransport) WrappedRoundTripper() http.RoundTripper { return t.transport() }

// transport returns the one for the authorities trusted now. Streams on an
// older one go on.
func (t *agentTransport) transport() *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	roots := t.identity.Roots()
	if t.current != nil && roots == t.roots {
		return t.current
	}
	if t.current != nil {
		t.current.CloseIdleConnections()
	}
	t.roots = roots
	t.current = utilnet.SetTransportDefaults(&http.Transport{TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: roots, InsecureSkipVerify: t.unverified,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return t.identity.Certificate() },
	}})
	return t.current
}
