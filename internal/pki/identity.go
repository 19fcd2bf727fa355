package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
)

// Identity is a certificate with its key and the authorities whose
// certificates are believed, as its files are now: each question looks whether
// they were replaced. It is safe for concurrent use.
type Identity struct {
	certificateFile, keyFile, rootsFile string

	// mu guards what follows.
	mu          sync.Mutex
	seen        [3]Stamp
	certificate *tls.Certificate
	roots       *x509.CertPool
}

// LoadIdentity reads the three files and returns an error that names the one
// that cannot be used.
func LoadIdentity(certificateFile, keyFile, rootsFile string) (*Identity, error) {
	i := &Identity{certificateFile: certificateFile, keyFile: keyFile, rootsFile: rootsFile}
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.refresh(); err != nil {
		return nil, err
	}
	return i, nil
}

// Certificate returns the certificate to show. While files are half replaced,
// or damaged, it is the last good one.
func (i *Identity) Certificate() (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	// Only LoadIdentity fails for bad files: a running daemon keeps what works.
	_ = i.refresh()
	return i.certificate, nil
}

// Roots returns the authorities to verify the other side against.
func (i *Identity) Roots() *x509.CertPool {
	i.mu.Lock()
	defer i.mu.Unlock()
	_ = i.refresh()
	return i.roots
}

func (i *Identity) leaf() *x509.Certificate {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.certificate.Leaf
}

// refresh reads the files when one of them was replaced.
func (i *Identity) refresh() error {
	var now [3]Stamp
	for n, path := range []string{i.certificateFile, i.keyFile, i.rootsFile} {
		var err error
		if now[n], err = StampOf(path); err != nil {
			return fmt.Errorf("load certificate: %w", err)
		}
	}
	if now == i.seen {
		return nil
	}
	certificate, err := tls.LoadX509KeyPair(i.certificateFile, i.keyFile)
	if err != nil {
		return fmt.Errorf("load certificate %s: %w", i.certificateFile, err)
	}
	if certificate.Leaf, err = x509.ParseCertificate(certificate.Certificate[0]); err != nil {
		return fmt.Errorf("load certificate %s: %w", i.certificateFile, err)
	}
	data, err := os.ReadFile(i.rootsFile)
	if err != nil {
		return fmt.Errorf("load authorities: %w", err)
	}
	bundle, err := ParseBundle(data)
	if err != nil {
		return fmt.Errorf("load authorities %s: %w", i.rootsFile, err)
	}
	roots := x509.NewCertPool()
	for _, each := range bundle {
		roots.AddCert(each)
	}
	i.certificate, i.roots, i.seen = &certificate, roots, now
	return nil
}
