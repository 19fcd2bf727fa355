package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
)

// ParseRequest reads the certificate request (PKCS #10) in PEM data. Its
// signature is not checked.
func ParseRequest(data []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

// SignTemplate signs a certificate for a key of somebody else as the template
// says; the serial number is ours, and it ends no later than the authority.
func (a *Authority) SignTemplate(template *x509.Certificate, key crypto.PublicKey) ([]byte, error) {
	own := *template
	fresh, err := newTemplate("", 0)
	if err != nil {
		return nil, err
	}
	own.SerialNumber = fresh.SerialNumber
	if a.Certificate.NotAfter.Before(own.NotAfter) {
		own.NotAfter = a.Certificate.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, &own, a.Certificate, key, a.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
