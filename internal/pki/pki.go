// Package pki makes and keeps the cluster's certificates: certificate
// authorities, the certificates they sign, the service account key pair, and
// kubeconfig files that carry client certificates. Files bear the names kubeadm
// gives them, so that an administrator finds what he expects.
//
// Everything here is idempotent: what exists and is still right is kept, so a
// restart does not change a cluster's identity. Keys are ECDSA P-256 and every
// file is readable by its owner only. The package knows no API server.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	// authorityLife and certificateLife follow kubeadm: ten years and one year.
	authorityLife   = 10 * 365 * 24 * time.Hour
	certificateLife = 365 * 24 * time.Hour
	// ClockSkew is how far the clock of another machine may be behind ours: by it
	// certificates begin earlier. Clocks that are an hour off are those that took a
	// local time for UTC.
	ClockSkew = time.Hour
)

// Authority is a certificate authority with its key.
type Authority struct {
	// Certificate is the one that signs: of the trusted ones, that of the key.
	Certificate *x509.Certificate
	// PEM are all trusted certificates, as clients put them into their
	// configuration: more than one while an authority is being replaced.
	PEM []byte
	key crypto.Signer
}

// Request describes a certificate to be signed.
type Request struct {
	CommonName    string
	Organizations []string
	// DNSNames and IPs are the names a server answers to.
	DNSNames []string
	IPs      []net.IP
	// URIs name an identity that is no host.
	URIs []*url.URL
	// Server and Client say what the certificate may be used for.
	Server, Client bool
}

// Pair is a certificate and its key, both PEM.
type Pair struct {
	Certificate, Key []byte
}

// EnsureAuthority returns the authority kept in dir as name.crt and name.key,
// and makes one when there is none.
func EnsureAuthority(dir, name, commonName string) (*Authority, error) {
	pair, err := readPair(dir, name)
	if errors.Is(err, errNoPair) {
		if pair, err = newAuthority(commonName); err != nil {
			return nil, fmt.Errorf("make certificate authority %s: %w", name, err)
		}
		if err := writePair(dir, name, pair); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	return newAuthorityOf(dir, name, pair)
}

// LoadAuthority returns the authority kept in dir as name.crt and name.key. The
// error is fs.ErrNotExist when this machine has no key to sign with.
func LoadAuthority(dir, name string) (*Authority, error) {
	if _, err := os.Stat(filepath.Join(dir, name+".key")); err != nil {
		return nil, fmt.Errorf("load certificate authority %s: %w", name, err)
	}
	pair, err := readPair(dir, name)
	if err != nil {
		return nil, err
	}
	return newAuthorityOf(dir, name, pair)
}

func newAuthorityOf(dir, name string, pair Pair) (*Authority, error) {
	bundle, err := ParseBundle(pair.Certificate)
	if err != nil {
		return nil, fmt.Errorf("certificate authority %s: %w", filepath.Join(dir, name+".crt"), err)
	}
	key, err := parseKey(pair.Key)
	if err != nil {
		return nil, fmt.Errorf("key of certificate authority %s: %w", filepath.Join(dir, name+".key"), err)
	}
	for _, certificate := range bundle {
		if belongs(certificate, key) {
			return &Authority{Certificate: certificate, PEM: pair.Certificate, key: key}, nil
		}
	}
	return nil, fmt.Errorf("certificate authority %s: none of its certificates belongs to the key %s; restore both from the same backup",
		filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
}

// belongs says whether the certificate is one of the key.
func belongs(certificate *x509.Certificate, key crypto.Signer) bool {
	public, ok := certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key.Public())
}

func newAuthority(commonName string) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	template, err := newTemplate(commonName, authorityLife)
	if err != nil {
		return Pair{}, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign
	template.DNSNames = []string{commonName}
	return encode(template, template, key, key)
}

// Sign makes a new key and a certificate for it as requested.
func (a *Authority) Sign(r Request) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	template, err := newTemplate(r.CommonName, certificateLife)
	if err != nil {
		return Pair{}, err
	}
	template.Subject.Organization = r.Organizations
	template.DNSNames, template.IPAddresses, template.URIs = r.DNSNames, r.IPs, r.URIs
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	template.ExtKeyUsage = r.usages()
	if a.Certificate.NotAfter.Before(template.NotAfter) {
		template.NotAfter = a.Certificate.NotAfter
	}
	return encode(template, a.Certificate, key, a.key)
}

// Ensure keeps the certificate dir/name.crt while it fits the request and is
// more than a third of its life is left; otherwise it signs a new one.
func (a *Authority) Ensure(dir, name string, r Request) error {
	return locked(dir, func() error {
		pair, err := readPair(dir, name)
		if err == nil && a.fits(pair, r) {
			return nil
		}
		if err != nil && !errors.Is(err, errNoPair) {
			return err
		}
		if pair, err = a.Sign(r); err != nil {
			return fmt.Errorf("sign certificate %s: %w", name, err)
		}
		return writePair(dir, name, pair)
	})
}

// fits says whether the pair is one that Sign would have made for the request
// and that need not be renewed yet.
func (a *Authority) fits(pair Pair, r Request) bool {
	certificate, err := parseCertificate(pair.Certificate)
	if err != nil {
		return false
	}
	key, err := parseKey(pair.Key)
	if err != nil {
		return false
	}
	if !belongs(certificate, key) || certificate.CheckSignatureFrom(a.Certificate) != nil {
		return false
	}
	sameIPs := len(certificate.IPAddresses) == len(r.IPs)
	for i := 0; sameIPs && i < len(r.IPs); i++ {
		sameIPs = certificate.IPAddresses[i].Equal(r.IPs[i])
	}
	return sameIPs &&
		certificate.Subject.CommonName == r.CommonName &&
		slices.Equal(certificate.Subject.Organization, r.Organizations) &&
		slices.Equal(certificate.DNSNames, r.DNSNames) &&
		slices.EqualFunc(certificate.URIs, r.URIs, func(a, b *url.URL) bool { return a.String() == b.String() }) &&
		slices.Equal(certificate.ExtKeyUsage, r.usages()) &&
		!due(certificate)
}

// due says whether a certificate should be renewed: when a third of its life
// or less is left, so that a machine that was off for a season still has time.
func due(certificate *x509.Certificate) bool {
	return time.Until(certificate.NotAfter) <= certificate.NotAfter.Sub(certificate.NotBefore)/3
}

func (r Request) usages() []x509.ExtKeyUsage {
	var usages []x509.ExtKeyUsage
	if r.Server {
		usages = append(usages, x509.ExtKeyUsageServerAuth)
	}
	if r.Client {
		usages = append(usages, x509.ExtKeyUsageClientAuth)
	}
	return usages
}

// EnsureKeyPair keeps an ECDSA key as dir/name.key and its public half as
// dir/name.pub, and makes them when there are none. Service account tokens are
// signed with it.
func EnsureKeyPair(dir, name string) error {
	keyPath := filepath.Join(dir, name+".key")
	data, err := os.ReadFile(keyPath)
	var key crypto.Signer
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fresh, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return fmt.Errorf("make key %s: %w", name, err)
		}
		if data, err = encodeKey(fresh); err != nil {
			return fmt.Errorf("make key %s: %w", name, err)
		}
		if err := WriteFile(keyPath, data); err != nil {
			return err
		}
		key = fresh
	case err != nil:
		return fmt.Errorf("read key: %w", err)
	default:
		if key, err = parseKey(data); err != nil {
			return fmt.Errorf("key %s: %w", keyPath, err)
		}
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("key %s: %w", keyPath, err)
	}
	return WriteFile(filepath.Join(dir, name+".pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
}

func newTemplate(commonName string, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: commonName},
		NotBefore:    now.Add(-ClockSkew),
		NotAfter:     now.Add(life),
	}, nil
}
