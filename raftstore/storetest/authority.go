// Package storetest makes stores of several members for tests: real ones, in
// one process, over loopback TCP with mutual TLS.
package storetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/skiff-run/skiff/raftstore/peer"
)

// Authority signs members' certificates.
type Authority struct {
	// Certificate is the authority's own.
	Certificate *x509.Certificate

	key *ecdsa.PrivateKey
}

// NewAuthority makes an authority nobody else knows.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "skiff-store-ca"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &Authority{Certificate: certificate, key: key}
}

// Issue makes a certificate which names the URI, for both directions unless
// usages say otherwise.
func (a *Authority) Issue(t testing.TB, uri string, usages ...x509.ExtKeyUsage) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	if usages == nil {
		usages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "member"}, URIs: []*url.URL{parsed},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), ExtKeyUsage: usages,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Pool holds the authority's certificate.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate)
	return pool
}

// Network makes a member's Network on a listening port.
func (a *Authority) Network(t testing.TB, memberID string, listener net.Listener) *peer.Network {
	t.Helper()
	certificate := a.Issue(t, peer.Identity(memberID))
	n, err := peer.Listen(peer.Config{
		Listener: listener, Roots: a.Pool,
		Certificate: func() (*tls.Certificate, error) { return certificate, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
