package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// handshake connects two members and returns the id each saw of the other.
func handshake(t *testing.T, server, client *Identity) (string, error) {
	t.Helper()
	serverEnd, clientEnd := net.Pipe()
	defer serverEnd.Close()
	defer clientEnd.Close()
	certificate := func(i *Identity) []tls.Certificate {
		c, err := i.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{*c}
	}
	answer := make(chan error, 1)
	go func() {
		answer <- tls.Server(serverEnd, &tls.Config{Certificates: certificate(server), ClientCAs: server.Roots(), ClientAuth: tls.RequireAndVerifyClientCert}).Handshake()
		serverEnd.Close()
	}()
	conn := tls.Client(clientEnd, &tls.Config{Certificates: certificate(client), RootCAs: client.Roots(), ServerName: "localhost"})
	err := conn.Handshake()
	clientEnd.Close()
	if err = errors.Join(err, <-answer); err != nil {
		return "", err
	}
	return conn.ConnectionState().PeerCertificates[0].URIs[0].String(), nil
}

func member(t *testing.T, dir, id string) *Identity {
	t.Helper()
	if err := EnsureStoreMember(dir, id, []string{"host1"}, []net.IP{net.IPv4(192, 168, 56, 10)}); err != nil {
		t.Fatal(err)
	}
	identity, err := LoadStoreMember(dir)
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(to, data); err != nil {
		t.Fatal(err)
	}
}

func TestMembersOfOneAuthorityKnowEachOtherAndNobodyElse(t *testing.T) {
	t.Parallel()
	first, second, stranger := t.TempDir(), t.TempDir(), t.TempDir()
	a := member(t, first, "m-a")
	for _, name := range []string{"store-ca.crt", "store-ca.key"} {
		copyFile(t, filepath.Join(first, name), filepath.Join(second, name))
	}
	b := member(t, second, "m-b")
	if id, err := handshake(t, a, b); err != nil || id != "skiff://member/m-a" {
		t.Errorf("got %q, %v", id, err)
	}
	if _, err := handshake(t, a, member(t, stranger, "m-a")); err == nil {
		t.Error("a member of another authority was let in")
	}
	readAll(t, first) // checks modes
}

func TestARenewedMemberCertificateIsShownWithoutAnotherLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	identity := member(t, dir, "m-a")
	before, _ := identity.Certificate()
	if again, _ := identity.Certificate(); again != before {
		t.Error("unchanged files were read again")
	}
	if err := EnsureStoreMember(dir, "m-a", nil, []net.IP{net.IPv4(192, 168, 56, 99)}); err != nil {
		t.Fatal(err)
	}
	after, _ := identity.Certificate()
	if err := after.Leaf.VerifyHostname("192.168.56.99"); err != nil {
		t.Errorf("the new certificate is not used: %v", err)
	}
	// Half a replacement: the last good pair stays.
	if err := WriteFile(filepath.Join(dir, "store-peer.key"), []byte("garbage")); err != nil {
		t.Fatal(err)
	}
	if kept, err := identity.Certificate(); err != nil || kept != after {
		t.Errorf("got %v, %v", kept, err)
	}
}

func TestAMemberWithoutTheAuthoritysKeyKeepsWhatItWasGiven(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	member(t, dir, "m-a")
	if err := os.Remove(filepath.Join(dir, "store-ca.key")); err != nil {
		t.Fatal(err)
	}
	before := readAll(t, dir)
	member(t, dir, "m-a")
	for name, content := range readAll(t, dir) {
		if before[name] != content {
			t.Errorf("%s changed", name)
		}
	}
	if err := EnsureStoreMember(dir, "m-b", nil, nil); err == nil {
		t.Error("a certificate of another member was accepted")
	}
	if _, err := os.Stat(filepath.Join(dir, "store-ca.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a second authority was made")
	}
}

func TestABundleSignsWithTheCertificateOfItsKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	authority, err := EnsureAuthority(dir, "ca", "kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	other, err := EnsureAuthority(t.TempDir(), "ca", "kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "ca.crt"), EncodeBundle([]*x509.Certificate{other.Certificate, authority.Certificate})); err != nil {
		t.Fatal(err)
	}
	loaded, err := LoadAuthority(dir, "ca")
	if err != nil {
		t.Fatal(err)
	}
	if !loaded.Certificate.Equal(authority.Certificate) || len(loaded.PEM) != len(authority.PEM)+len(other.PEM) {
		t.Error("the wrong certificate signs, or the bundle is not whole")
	}
}
