package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/skiff-run/skiff/internal/pki"
)

// stranger is an error of a server whose certificate our authority did not sign.
type stranger struct{ err error }

func (s stranger) Error() string { return s.err.Error() }

// authority reads the certificates of an authority of this machine; nil when
// there are none, as before a join.
func (e *examination) authority(name string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(e.PKI() + "/" + name + ".crt")
	if err != nil {
		return nil, err
	}
	return pki.ParseBundle(data)
}

// tlsTo connects to host:port and shakes hands. When roots are given, the
// server's certificate must be signed by one of them and, if a name is given,
// be made out to it: otherwise the error is a stranger. Times are not judged
// here, so that a wrong clock is not taken for a wrong authority.
func (e *examination) tlsTo(ctx context.Context, address, name string, roots []*x509.Certificate) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, err := e.dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	secured := tls.Client(conn, &tls.Config{
		MinVersion: tls.VersionTLS12,
		// Verified below: only to tell what is wrong. Nothing secret is sent.
		InsecureSkipVerify: true, //nolint:gosec
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(roots) == 0 {
				return nil
			}
			return verify(state.PeerCertificates, name, roots)
		},
	})
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}

func verify(chain []*x509.Certificate, name string, roots []*x509.Certificate) error {
	if len(chain) == 0 {
		return stranger{errors.New("shows no certificate")}
	}
	pool, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, root := range roots {
		pool.AddCert(root)
	}
	for _, each := range chain[1:] {
		intermediates.AddCert(each)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName: name, Roots: pool, Intermediates: intermediates, CurrentTime: chain[0].NotBefore,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return stranger{fmt.Errorf("its certificate (%s): %w", chain[0].Subject, err)}
	}
	return nil
}

// fixed hands out one connection that is there already.
func fixed(conn net.Conn) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) { return conn, nil }
}
