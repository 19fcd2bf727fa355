package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
)

// KeyHash names a certificate's public key as kubeadm does: sha256: and the
// hexadecimal SHA-256 of its SubjectPublicKeyInfo.
func KeyHash(certificate *x509.Certificate) string {
	sum := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// NewRequest makes a key and a certificate request for it, both PEM. The
// request proves that its sender has the key; the names are the signer's to write.
func NewRequest(commonName string) (request, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: commonName}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, private)
	if err != nil {
		return nil, nil, err
	}
	if key, err = encodeKey(private); err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), key, nil
}

// PublicKeyOf returns the public key of a PEM certificate request whose
// signature shows that its sender has the private one.
func PublicKeyOf(request []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("no PEM certificate request")
	}
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := parsed.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the sender does not have its key: %w", err)
	}
	return parsed.PublicKey, nil
}

// SignKey signs a certificate as requested for somebody else's key and returns it as PEM.
func (a *Authority) SignKey(public crypto.PublicKey, r Request) ([]byte, error) {
	template, err := newTemplate(r.CommonName, certificateLife)
	if err != nil {
		return nil, err
	}
	template.Subject.Organization = r.Organizations
	template.DNSNames, template.IPAddresses = r.DNSNames, r.IPs
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	template.ExtKeyUsage = r.usages()
	if a.Certificate.NotAfter.Before(template.NotAfter) {
		template.NotAfter = a.Certificate.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, public, a.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// Install puts files that another machine granted into the folder of
// certificates. Names with a folder in them are refused.
func Install(dir string, files map[string][]byte) error {
	for name := range files {
		if name != filepath.Base(name) || !filepath.IsLocal(name) {
			return fmt.Errorf("install certificates: %q is not the name of a file", name)
		}
	}
	for name, data := range files {
		if err := WriteFile(filepath.Join(dir, name), data); err != nil {
			return err
		}
	}
	return nil
}
