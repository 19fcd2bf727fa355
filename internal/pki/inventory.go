package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// Certificate is what Check found out about one certificate on this machine.
type Certificate struct {
	// Name is what Renew calls it: apiserver, admin.conf; ca for an authority.
	Name string `json:"name"`
	Path string `json:"path"`
	// Subject and Issuer are distinguished names.
	Subject string `json:"subject"`
	Issuer  string `json:"issuer"`
	// Names are the hosts, addresses and URIs it stands for.
	Names []string `json:"names,omitempty"`
	// Authority is the name of the authority here that signed it, or empty.
	Authority string    `json:"authority,omitempty"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	// DaysLeft is negative for an expired certificate.
	DaysLeft int `json:"daysLeft"`
	// Renewable says whether this machine has the key to sign a new one.
	Renewable bool `json:"renewable"`
	// Problem is empty for a certificate in order; otherwise what is wrong and
	// what to do.
	Problem string `json:"problem,omitempty"`

	leaf *x509.Certificate
	// unpaired: the key is another certificate's.
	unpaired bool
}

// Check describes every certificate in dir (a folder such as /etc/skiff/pki)
// and in the kubeconfigs beside it (/etc/skiff/*.conf), the authorities first and
// the kubeconfigs last, each by name. An error is returned only when dir cannot be read: a
// damaged file is reported as its certificate's problem.
func Check(dir string) ([]Certificate, error) {
	known, found, err := checkAuthorities(dir)
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.crt"))
	if err != nil {
		return nil, fmt.Errorf("list certificates in %s: %w", dir, err)
	}
	// By name, not by file name, whose ending would put apiserver-x before apiserver.
	slices.SortFunc(paths, func(a, b string) int {
		return strings.Compare(strings.TrimSuffix(a, ".crt"), strings.TrimSuffix(b, ".crt"))
	})
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".crt")
		if slices.Contains(authorities, strings.TrimSuffix(strings.TrimSuffix(name, nextSuffix), previousSuffix)) {
			continue
		}
		pair, err := readPair(dir, name)
		found = append(found, known.describe(name, path, pair, err))
	}
	issued, err := filepath.Glob(filepath.Join(dir, "*"+issuedSuffix))
	if err != nil {
		return nil, fmt.Errorf("list certificates in %s: %w", dir, err)
	}
	for _, path := range issued {
		data, err := os.ReadFile(path)
		c := known.describe(strings.TrimSuffix(filepath.Base(path), issuedSuffix), path, Pair{Certificate: data, Key: keyOf(data)}, err)
		// The daemon that has it asks the API for the next.
		c.Renewable = false
		found = append(found, c)
	}
	kubeconfigs, err := filepath.Glob(filepath.Join(filepath.Dir(dir), "*.conf"))
	if err != nil {
		return nil, fmt.Errorf("list kubeconfigs beside %s: %w", dir, err)
	}
	for _, path := range kubeconfigs {
		config, err := clientcmd.LoadFromFile(path)
		if err != nil {
			found = append(found, Certificate{Name: filepath.Base(path), Path: path, Problem: fmt.Sprintf("cannot be read: %v; restore it from a backup or remove it to have it made anew", err)})
			continue
		}
		for _, user := range config.AuthInfos {
			if len(user.ClientCertificateData) > 0 {
				found = append(found, known.describe(filepath.Base(path), path, Pair{Certificate: user.ClientCertificateData, Key: user.ClientKeyData}, nil))
			}
		}
	}
	return found, nil
}

// issuedSuffix ends the files in which daemons keep a certificate and key that
// the API has issued.
const issuedSuffix = "-current.pem"

// keyOf returns the part of PEM data from the key on.
func keyOf(data []byte) []byte {
	for rest := data; ; {
		block, after := pem.Decode(rest)
		if block == nil {
			return nil
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return pem.EncodeToMemory(block)
		}
		rest = after
	}
}

// signers are the authorities of a folder by name: what they trust, and the key
// when it is there.
type signers map[string]signer

type signer struct {
	bundle []*x509.Certificate
	// authority is nil on a machine that cannot sign.
	authority *Authority
}

func checkAuthorities(dir string) (signers, []Certificate, error) {
	if _, err := os.ReadDir(dir); err != nil {
		return nil, nil, fmt.Errorf("read certificates: %w", err)
	}
	known, found := signers{}, []Certificate{}
	for _, name := range authorities {
		path := filepath.Join(dir, name+".crt")
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var s signer
		if err == nil {
			s.bundle, err = ParseBundle(data)
		}
		if err != nil {
			found = append(found, Certificate{Name: name, Path: path, Problem: err.Error()})
			continue
		}
		var keyProblem string
		s.authority, err = LoadAuthority(dir, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			keyProblem = err.Error()
		}
		known[name] = s
		for _, each := range s.bundle {
			c := describe(name, path, each)
			c.Authority, c.Problem = name, keyProblem
			c.Renewable = s.authority != nil && each.Equal(s.authority.Certificate)
			if c.Problem == "" && c.Renewable && successorDue(each) {
				c.Problem = "should be replaced: it ends soon; skiff-control does so by itself, or run \"skiff pki rotate\""
			}
			if c.Problem == "" {
				c.Problem = validity(each, false)
			}
			found = append(found, c)
		}
	}
	return known, found, nil
}

func (s signers) describe(name, path string, pair Pair, err error) Certificate {
	var leaf *x509.Certificate
	if err == nil {
		leaf, err = parseCertificate(pair.Certificate)
	}
	if err != nil {
		return Certificate{Name: name, Path: path, Problem: err.Error()}
	}
	c := describe(name, path, leaf)
	for _, authority := range authorities {
		for _, each := range s[authority].bundle {
			if signedBy(leaf, each) {
				c.Authority, c.Renewable = authority, s[authority].authority != nil
			}
		}
	}
	switch key, err := parseKey(pair.Key); {
	case err != nil:
		c.Problem = "its key cannot be read: " + err.Error()
	case !belongs(leaf, key):
		c.unpaired = true
		c.Problem = "does not belong to its key; run \"skiff pki renew " + name + "\""
	case c.Authority == "":
		c.Problem = "is signed by none of the authorities here, so nobody will believe it"
	default:
		c.Problem = validity(leaf, c.Renewable)
	}
	return c
}

// signedBy says whether the authority signed the certificate. Their key ids are
// compared first because checking a signature costs a thousand times more.
func signedBy(leaf, authority *x509.Certificate) bool {
	return bytes.Equal(leaf.AuthorityKeyId, authority.SubjectKeyId) && leaf.CheckSignatureFrom(authority) == nil
}

func describe(name, path string, certificate *x509.Certificate) Certificate {
	c := Certificate{
		Name: name, Path: path, Subject: certificate.Subject.String(), Issuer: certificate.Issuer.String(),
		NotBefore: certificate.NotBefore, NotAfter: certificate.NotAfter, leaf: certificate,
		DaysLeft: int(math.Floor(time.Until(certificate.NotAfter).Hours() / 24)),
		Names:    slices.Clone(certificate.DNSNames),
	}
	for _, address := range certificate.IPAddresses {
		c.Names = append(c.Names, address.String())
	}
	for _, uri := range certificate.URIs {
		c.Names = append(c.Names, uri.String())
	}
	return c
}

// validity says what is wrong with the certificate's time.
func validity(certificate *x509.Certificate, renewable bool) string {
	remedy := "; renew it on a machine that has its authority's key"
	if renewable {
		remedy = "; run \"skiff pki renew\""
	}
	if certificate.IsCA {
		remedy = "; run \"skiff pki rotate\""
	}
	now := time.Now()
	switch {
	case now.After(certificate.NotAfter):
		return "expired on " + certificate.NotAfter.UTC().Format(time.RFC3339) + remedy
	case now.Before(certificate.NotBefore):
		return "is not valid before " + certificate.NotBefore.UTC().Format(time.RFC3339) + "; check this machine's clock"
	case !certificate.IsCA && time.Until(certificate.NotAfter) < certificate.NotAfter.Sub(certificate.NotBefore)/4:
		// Long after it should have renewed itself.
		return "was not renewed in time" + remedy
	}
	return ""
}
