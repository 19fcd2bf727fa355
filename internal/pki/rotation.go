package pki

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// An authority is replaced in three steps, so that at each moment everybody
// trusts whatever anybody shows:
//
//  1. Introduce makes the successor (name-next.crt and .key). Everybody begins
//     to trust it; the present one still signs.
//  2. Adopt makes the successor sign; the one before it (name-previous.crt) is
//     still trusted. Its key is gone.
//  3. Retire ends the trust in the previous one.
//
// Each control machine makes a successor of its own and all trust all of them:
// so no key of an authority ever travels.
const (
	nextSuffix     = "-next"
	previousSuffix = "-previous"
)

const (
	// Settling is how long everybody has to begin trusting a successor before
	// it signs: an agent that was off for so long still comes back by itself.
	Settling = 30 * 24 * time.Hour
	// Fading is how long a previous authority is trusted after it has ceased to
	// sign: until its last certificate has expired.
	Fading = certificateLife + 24*time.Hour
)

// Stage is how far the replacement of an authority has come.
type Stage string

// The stages of a replacement, in their order.
const (
	Settled   Stage = "Settled"
	Trusting  Stage = "Trusting"
	Replacing Stage = "Replacing"
)

// Rotation is the state of one authority on this machine.
type Rotation struct {
	Authority string `json:"authority"`
	Stage     Stage  `json:"stage"`
	// Since is when the stage began; zero when settled.
	Since time.Time `json:"since,omitzero"`
	// Signing is the certificate that signs, Next its successor, Previous its
	// predecessor; each nil when there is none.
	Signing, Next, Previous *x509.Certificate `json:"-"`
}

// Own returns what everybody should trust on account of this machine.
func (r Rotation) Own() []*x509.Certificate {
	var own []*x509.Certificate
	for _, each := range []*x509.Certificate{r.Signing, r.Next, r.Previous} {
		if each != nil && !slices.ContainsFunc(own, each.Equal) {
			own = append(own, each)
		}
	}
	return own
}

// SuccessorDue says whether the signing certificate should be replaced: when a
// fifth of its life is left, two years of ten.
func (r Rotation) SuccessorDue() bool { return successorDue(r.Signing) }

func successorDue(authority *x509.Certificate) bool {
	return time.Until(authority.NotAfter) <= authority.NotAfter.Sub(authority.NotBefore)/5
}

// AuthorityNames are the names of all authorities of a cluster.
func AuthorityNames() []string { return slices.Clone(authorities) }

// Authorities returns the names of the authorities this machine can sign with.
func Authorities(dir string) []string {
	return slices.DeleteFunc(slices.Clone(authorities), func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name+".key"))
		return err != nil
	})
}

// RotationOf reads how far the replacement of an authority has come.
func RotationOf(dir, name string) (Rotation, error) {
	authority, err := LoadAuthority(dir, name)
	if err != nil {
		return Rotation{}, err
	}
	r := Rotation{Authority: name, Stage: Settled, Signing: authority.Certificate}
	var since time.Time
	if r.Previous, since, err = readStep(filepath.Join(dir, name+previousSuffix+".crt"), r.Signing); err != nil {
		return Rotation{}, err
	}
	if r.Previous != nil {
		r.Stage, r.Since = Replacing, since
	}
	if _, err := os.Stat(filepath.Join(dir, name+nextSuffix+".key")); err == nil {
		if r.Next, since, err = readStep(filepath.Join(dir, name+nextSuffix+".crt"), r.Signing); err != nil {
			return Rotation{}, err
		}
		if r.Next != nil {
			r.Stage, r.Since = Trusting, since
		}
	}
	return r, nil
}

// sinceHeader is the header of a PEM block that says when its step was taken.
const sinceHeader = "Since"

// writeStep keeps the certificate of a step with the time it was taken at.
func writeStep(path string, certificate *x509.Certificate) error {
	return WriteFile(path, pem.EncodeToMemory(&pem.Block{
		Type: "CERTIFICATE", Bytes: certificate.Raw, Headers: map[string]string{sinceHeader: time.Now().UTC().Format(time.RFC3339)},
	}))
}

// readStep returns nothing when the step was not taken, or when it was that of
// the certificate that signs now: what a crash between two steps leaves.
func readStep(path string, signing *x509.Certificate) (*x509.Certificate, time.Time, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read certificate: %w", err)
	}
	certificate, err := parseCertificate(data)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("certificate %s: %w", path, err)
	}
	if certificate.Equal(signing) {
		return nil, time.Time{}, nil
	}
	block, _ := pem.Decode(data)
	since, err := time.Parse(time.RFC3339, block.Headers[sinceHeader])
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("certificate %s: header %s: %w", path, sinceHeader, err)
	}
	return certificate, since, nil
}

// Introduce is the first step of replacing an authority. Once begun it changes
// nothing until Adopt.
func Introduce(dir, name string) error {
	return locked(dir, func() error { return introduce(dir, name) })
}

func introduce(dir, name string) error {
	r, err := RotationOf(dir, name)
	if err != nil {
		return err
	}
	switch r.Stage {
	case Trusting:
		return nil
	case Replacing:
		return fmt.Errorf("replace authority %s: its last replacement is not complete: the previous certificate is still trusted", name)
	}
	next, err := newAuthority(r.Signing.Subject.CommonName)
	if err != nil {
		return fmt.Errorf("make successor of authority %s: %w", name, err)
	}
	// The certificate first: only both together are a successor.
	certificate, err := parseCertificate(next.Certificate)
	if err != nil {
		return fmt.Errorf("make successor of authority %s: %w", name, err)
	}
	if err := writeStep(filepath.Join(dir, name+nextSuffix+".crt"), certificate); err != nil {
		return err
	}
	if err := WriteFile(filepath.Join(dir, name+nextSuffix+".key"), next.Key); err != nil {
		return err
	}
	return extendTrust(dir, name)
}

// Adopt is the second step: the successor signs from now on.
func Adopt(dir, name string) error {
	return locked(dir, func() error { return adopt(dir, name) })
}

func adopt(dir, name string) error {
	r, err := RotationOf(dir, name)
	if err != nil {
		return err
	}
	if r.Stage != Trusting {
		return fmt.Errorf("replace authority %s: there is no successor yet", name)
	}
	if err := extendTrust(dir, name); err != nil {
		return err
	}
	if err := writeStep(filepath.Join(dir, name+previousSuffix+".crt"), r.Signing); err != nil {
		return err
	}
	// The one moment at which the signer changes.
	if err := os.Rename(filepath.Join(dir, name+nextSuffix+".key"), filepath.Join(dir, name+".key")); err != nil {
		return fmt.Errorf("replace key of authority %s: %w", name, err)
	}
	return remove(filepath.Join(dir, name+nextSuffix+".crt"))
}

// Retire is the third step: the previous certificate is not trusted any more.
// Before, everything it signed must have been replaced.
func Retire(dir, name string) error {
	return locked(dir, func() error { return retire(dir, name) })
}

func retire(dir, name string) error {
	r, err := RotationOf(dir, name)
	if err != nil {
		return err
	}
	if r.Stage != Replacing {
		return fmt.Errorf("replace authority %s: it has no previous certificate to be dropped", name)
	}
	bundle, err := ReadBundle(filepath.Join(dir, name+".crt"))
	if err != nil {
		return err
	}
	if err := remove(filepath.Join(dir, name+previousSuffix+".crt")); err != nil {
		return err
	}
	return WriteFile(filepath.Join(dir, name+".crt"), EncodeBundle(slices.DeleteFunc(bundle, r.Previous.Equal)))
}

// Abandon undoes Introduce.
func Abandon(dir, name string) error {
	return locked(dir, func() error { return abandon(dir, name) })
}

func abandon(dir, name string) error {
	r, err := RotationOf(dir, name)
	if err != nil {
		return err
	}
	if r.Stage != Trusting {
		return fmt.Errorf("keep authority %s: there is no successor to give up; what signs already cannot be taken back", name)
	}
	bundle, err := ReadBundle(filepath.Join(dir, name+".crt"))
	if err != nil {
		return err
	}
	if err := remove(filepath.Join(dir, name+nextSuffix+".key")); err != nil {
		return err
	}
	if err := remove(filepath.Join(dir, name+nextSuffix+".crt")); err != nil {
		return err
	}
	return WriteFile(filepath.Join(dir, name+".crt"), EncodeBundle(slices.DeleteFunc(bundle, r.Next.Equal)))
}

// Trust makes dir/name.crt hold what this machine wants trusted and the given
// certificates of other machines, without the expired ones, and nothing else.
// It returns whether the file changed.
func Trust(dir, name string, others []*x509.Certificate) (changed bool, err error) {
	err = locked(dir, func() error {
		changed, err = trust(dir, name, others)
		return err
	})
	return changed, err
}

func trust(dir, name string, others []*x509.Certificate) (bool, error) {
	path := filepath.Join(dir, name+".crt")
	present, err := ReadBundle(path)
	if err != nil {
		return false, err
	}
	var wanted []*x509.Certificate
	r, err := RotationOf(dir, name)
	switch {
	case err == nil:
		wanted = r.Own()
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	now := time.Now()
	for _, each := range others {
		if each.IsCA && now.Before(each.NotAfter) && !slices.ContainsFunc(wanted, each.Equal) {
			wanted = append(wanted, each)
		}
	}
	if len(wanted) == 0 {
		return false, fmt.Errorf("update authorities %s: none would be left", path)
	}
	sameSet := len(wanted) == len(present) && !slices.ContainsFunc(wanted, func(c *x509.Certificate) bool { return !slices.ContainsFunc(present, c.Equal) })
	if sameSet && (r.Signing == nil || present[0].Equal(r.Signing)) {
		return false, nil
	}
	return true, WriteFile(path, EncodeBundle(wanted))
}

// extendTrust adds what this machine wants trusted to what is trusted already.
func extendTrust(dir, name string) error {
	present, err := ReadBundle(filepath.Join(dir, name+".crt"))
	if err != nil {
		return err
	}
	_, err = trust(dir, name, present)
	return err
}

// ReadBundle reads the certificates of a PEM file.
func ReadBundle(path string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read authorities: %w", err)
	}
	bundle, err := ParseBundle(data)
	if err != nil {
		return nil, fmt.Errorf("read authorities %s: %w", path, err)
	}
	return bundle, nil
}

// Fingerprint names a certificate: the SHA-256 of all of it, in hex.
func Fingerprint(certificate *x509.Certificate) string {
	sum := sha256.Sum256(certificate.Raw)
	return hex.EncodeToString(sum[:])
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}
