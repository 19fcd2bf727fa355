package apiclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits of silence. With another API server to move to, a connection is asked
// for a sign of life when it was silent for a third of a second, and the kernel
// gives it up when the question is not acknowledged: it asks again after a fifth
// of a second, once more after another, both by the connection's own measure so
// that a long way is given its time, and a tenth of a second after that the
// third question counts as lost too: 0.8 s in all. That the other machine's
// kernel acknowledges but its process says nothing takes longer to be believed:
// a busy machine is no dead one. Without another API server there is no hurry.
var (
	hurried = pace{ping: 300 * time.Millisecond, answer: 3 * time.Second, acknowledge: 100 * time.Millisecond}
	calm    = pace{ping: 10 * time.Second, answer: 15 * time.Second, acknowledge: 10 * time.Second}
)

// pace is how soon a connection is believed to be dead.
type pace struct{ ping, answer, acknowledge time.Duration }

// handshakeLimit bounds a TLS handshake: a paused process accepts connections
// and says nothing.
const handshakeLimit = 2 * time.Second

// credentials are what a client shows and believes, as they are now. Pointers
// stay the same until they change.
type credentials interface {
	current() (certificate *tls.Certificate, roots *x509.CertPool)
	// bearer is a token, empty for none.
	bearer() string
}

// transport is an http.RoundTripper whose connections have today's credentials.
// When those change, new requests go over a new connection; what is under way
// on the old one, a watch above all, ends there.
type transport struct {
	credentials credentials
	dialer      *Dialer
	hostname    string

	// mu guards what follows.
	mu          sync.Mutex
	inner       *http.Transport
	certificate *tls.Certificate
	roots       *x509.CertPool
	pace        pace
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	if token := t.credentials.bearer(); token != "" && request.Header.Get("Authorization") == "" {
		request = request.Clone(request.Context())
		request.Header.Set("Authorization", "Bearer "+token)
	}
	return t.now().RoundTrip(request)
}

func (t *transport) now() *http.Transport {
	certificate, roots := t.credentials.current()
	pace := t.dialer.pace()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.inner != nil && certificate == t.certificate && roots == t.roots && pace == t.pace {
		return t.inner
	}
	if t.inner != nil {
		t.inner.CloseIdleConnections()
	}
	t.certificate, t.roots, t.pace = certificate, roots, pace
	t.inner = &http.Transport{
		DialContext: t.dialer.DialContext,
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return t.dialer.encrypted(ctx, network, address, tlsConfig(certificate, roots, t.hostname))
		},
		ForceAttemptHTTP2: true, IdleConnTimeout: 90 * time.Second, MaxIdleConnsPerHost: 4,
		HTTP2: &http.HTTP2Config{SendPingTimeout: pace.ping, PingTimeout: pace.answer},
	}
	return t.inner
}

// encrypted connects to an API server and shakes hands; a server that does not
// is left for the next one, once.
func (d *Dialer) encrypted(ctx context.Context, network, address string, config *tls.Config) (net.Conn, error) {
	var errs []error
	for range d.Addresses() {
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, errors.Join(append(errs, err)...)
		}
		encrypted := tls.Client(conn, config)
		limited, cancel := context.WithTimeout(ctx, handshakeLimit)
		err = encrypted.HandshakeContext(limited)
		cancel()
		if err == nil {
			return encrypted, nil
		}
		// Closed by us, it makes the next attempt begin elsewhere.
		_ = conn.Close()
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// tlsConfig shows the certificate and believes a server that one of the roots
// has signed for the name that all API servers of a cluster have, for they are
// one, or for the host name that the kubeconfig knows it by.
func tlsConfig(certificate *tls.Certificate, roots *x509.CertPool, hostname string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, ServerName: hostname,
		// Not unverified: VerifyConnection below does it, for either of two names.
		InsecureSkipVerify: true, //nolint:gosec // see above
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if certificate == nil {
				return &tls.Certificate{}, nil
			}
			return certificate, nil
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), DNSName: serverName}
			for _, each := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(each)
			}
			if _, err := state.PeerCertificates[0].Verify(options); err == nil {
				return nil
			}
			options.DNSName = hostname
			_, err := state.PeerCertificates[0].Verify(options)
			return err
		},
	}
}
