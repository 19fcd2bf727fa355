package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/raftstore"
)

// The protocols of the port, as negotiated in the handshake.
const (
	protocolRaft = "skiff-raft/1"
	protocolCall = "skiff-store/1"
)

const (
	// connectTimeout bounds reaching a member's port, handshakeTimeout what
	// follows.
	connectTimeout   = time.Second
	handshakeTimeout = 3 * time.Second
	// unacknowledgedTimeout is how long what was sent may stay unacknowledged
	// by the other machine before the connection is given up: a cut network must
	// not be waited for with the kernel's patience of minutes.
	unacknowledgedTimeout = 2 * time.Second
)

// identityPrefix begins the URI in a member's certificate; the id follows.
const identityPrefix = "skiff://member/"

// Identity is the URI by which a certificate names the member it belongs to.
func Identity(memberID string) string { return identityPrefix + memberID }

// memberOf reads the member's id out of a certificate.
func memberOf(c *x509.Certificate) (string, error) {
	for _, uri := range c.URIs {
		if id, ok := strings.CutPrefix(uri.String(), identityPrefix); ok && id != "" {
			return id, nil
		}
	}
	return "", fmt.Errorf("certificate %q names no member: it needs a URI %s<member id>", c.Subject.CommonName, identityPrefix)
}

// verify checks a certificate chain against the roots of this moment and
// returns whose it is.
func (n *Network) verify(state tls.ConnectionState, usage x509.ExtKeyUsage) (string, error) {
	if len(state.PeerCertificates) == 0 {
		return "", errors.New("the other side showed no certificate")
	}
	options := x509.VerifyOptions{Roots: n.config.Roots(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, c := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(c)
	}
	if _, err := state.PeerCertificates[0].Verify(options); err != nil {
		return "", fmt.Errorf("verify the other side's certificate: %w", err)
	}
	return memberOf(state.PeerCertificates[0])
}

// serverTLS accepts members whose certificate holds; for raft's messages they
// must be admitted too.
func (n *Network) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{protocolRaft, protocolCall},
		ClientAuth: tls.RequireAnyClientCert, // verified below, against the roots of the moment
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return n.config.Certificate()
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			id, err := n.verify(state, x509.ExtKeyUsageClientAuth)
			if err != nil {
				return err
			}
			// Calls of a stranger get through to the store, which answers them with
			// what they need to know: that they do not belong to it any more.
			if state.NegotiatedProtocol != protocolCall && !n.local.Admits(id) {
				return fmt.Errorf("%q is not a member of this store", id)
			}
			return nil
		},
		SessionTicketsDisabled: true, // each connection is verified anew
	}
}

// clientTLS reaches exactly one member: its name is its id, not its host.
func (n *Network) clientTLS(memberID, protocol string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{protocol},
		InsecureSkipVerify: true, // VerifyConnection verifies chain and identity
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return n.config.Certificate()
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			id, err := n.verify(state, x509.ExtKeyUsageServerAuth)
			if err != nil {
				return err
			}
			if id != memberID {
				return fmt.Errorf("this is member %q, not %q", id, memberID)
			}
			return nil
		},
		SessionTicketsDisabled: true,
	}
}

// dial opens a verified connection to a member. It says ErrUnreachable
// whenever it fails.
func (n *Network) dial(ctx context.Context, memberID, address, protocol string) (*tls.Conn, error) {
	dialer := net.Dialer{Timeout: connectTimeout, KeepAliveConfig: keepAlive, Control: limitUnacknowledged}
	plain, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		kind := raftstore.ErrUnreachable
		if errors.Is(err, syscall.ECONNREFUSED) {
			kind = raftstore.ErrNobodyListens
		}
		return nil, fmt.Errorf("%w: member %s: %w", kind, memberID, err)
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	secured := tls.Client(plain, n.clientTLS(memberID, protocol))
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = plain.Close() // the handshake's error says more
		return nil, fmt.Errorf("%w: member %s at %s: %w", raftstore.ErrUnreachable, memberID, address, err)
	}
	return secured, nil
}

var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// limitUnacknowledged sets unacknowledgedTimeout on a socket.
func limitUnacknowledged(_, _ string, c syscall.RawConn) error {
	var err error
	controlled := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledgedTimeout.Milliseconds()))
	})
	return errors.Join(controlled, err)
}
