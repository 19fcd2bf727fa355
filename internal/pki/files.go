package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/skiff-run/skiff/internal/durable"
)

func encode(template, parent *x509.Certificate, key *ecdsa.PrivateKey, signer crypto.Signer) (Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return Pair{}, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), Key: keyPEM}, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

func parseCertificate(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("holds no PEM certificate; restore it from a backup, or remove it together with its key to have it made anew")
	}
	return x509.ParseCertificate(block.Bytes)
}

// ParseBundle returns the certificates in PEM data, of which there must be one.
func ParseBundle(data []byte) ([]*x509.Certificate, error) {
	var bundle []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		bundle = append(bundle, certificate)
	}
	if len(bundle) == 0 {
		return nil, errors.New("holds no PEM certificate; restore it from a backup, or remove it together with its key to have it made anew")
	}
	return bundle, nil
}

// EncodeBundle is the opposite of ParseBundle.
func EncodeBundle(bundle []*x509.Certificate) []byte {
	var data []byte
	for _, certificate := range bundle {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})...)
	}
	return data
}

func parseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("holds no PEM key; restore it from a backup, or remove it together with its certificate to have it made anew")
	}
	if block.Type == "EC PRIVATE KEY" {
		return x509.ParseECPrivateKey(block.Bytes)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", parsed)
	}
	return signer, nil
}

// errNoPair says that there is nothing yet, so that a pair may be made.
var errNoPair = errors.New("no certificate and no key")

// readPair reads dir/name.crt and dir/name.key. The error is errNoPair only
// when both are missing: half a pair is damage, not a fresh start. A key
// without certificate is also what a crash inside writePair leaves, and for
// all but the authorities, whose identity clients rely on, is made anew.
func readPair(dir, name string) (Pair, error) {
	certificatePath, keyPath := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	certificate, certificateErr := os.ReadFile(certificatePath)
	key, keyErr := os.ReadFile(keyPath)
	switch {
	case certificateErr == nil && keyErr == nil:
		return Pair{Certificate: certificate, Key: key}, nil
	case os.IsNotExist(certificateErr) && os.IsNotExist(keyErr):
		return Pair{}, errNoPair
	case os.IsNotExist(certificateErr) && keyErr == nil && !slices.Contains(authorities, name):
		return Pair{}, errNoPair
	case certificateErr != nil:
		return Pair{}, fmt.Errorf("read certificate: %w; its key is at %s: restore the certificate from a backup, or remove the key to have both made anew", certificateErr, keyPath)
	default:
		return Pair{}, fmt.Errorf("read key: %w; its certificate is at %s: restore the key from a backup, or remove the certificate to have both made anew", keyErr, certificatePath)
	}
}

func writePair(dir, name string, pair Pair) error {
	if err := WriteFile(filepath.Join(dir, name+".key"), pair.Key); err != nil {
		return err
	}
	return WriteFile(filepath.Join(dir, name+".crt"), pair.Certificate)
}

// WriteFile replaces a file at once or not at all. A new one is readable by the
// owner of its folder only, one that was there stays whose it was.
func WriteFile(path string, data []byte) error { return durable.WriteFile(path, data) }
