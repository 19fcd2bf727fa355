package pki

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func problems(t *testing.T, dir string) map[string]string {
	t.Helper()
	found, err := Check(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, c := range found {
		if c.Problem != "" {
			out[c.Name] = c.Problem
		}
	}
	return out
}

func controlMachine(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pki")
	authority, err := EnsureControl(control(dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := EnsureStoreMember(dir, "m-a", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := authority.EnsureKubeconfig(filepath.Join(filepath.Dir(dir), "admin.conf"), "skiff", "https://10.0.0.1:6443", "kubernetes-admin", AdminGroup); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCheckNamesWhatIsWrongAndTheRemedy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := controlMachine(t)
		if found := problems(t, dir); len(found) != 0 {
			t.Fatalf("a fresh machine has problems: %v", found)
		}
		found, err := Check(dir)
		if err != nil {
			t.Fatal(err)
		}
		var listed []string
		for _, c := range found {
			listed = append(listed, c.Name)
		}
		want := []string{"ca", "front-proxy-ca", "store-ca", "apiserver", "apiserver-kubelet-client", "front-proxy-client", "store-peer", "admin.conf"}
		if !slices.Equal(listed, want) {
			t.Errorf("listed %v, want %v", listed, want)
		}
		copyFile(t, filepath.Join(dir, "apiserver.key"), filepath.Join(dir, "front-proxy-client.key"))
		if p := problems(t, dir)["front-proxy-client"]; !strings.Contains(p, "does not belong to its key") {
			t.Errorf("got %q", p)
		}
		// What a crash between the two files of a pair leaves heals by itself.
		if renewed, err := RenewDue(dir); err != nil || !slices.Equal(renewed, []string{"front-proxy-client"}) {
			t.Errorf("got %v, %v", renewed, err)
		}
		time.Sleep(300 * 24 * time.Hour)
		if p := problems(t, dir)["apiserver"]; !strings.Contains(p, "not renewed in time") || !strings.Contains(p, "skiff pki renew") {
			t.Errorf("got %q", p)
		}
		time.Sleep(70 * 24 * time.Hour)
		if p := problems(t, dir)["admin.conf"]; !strings.Contains(p, "expired on") {
			t.Errorf("got %q", p)
		}
		if _, err := Renew(dir); err != nil {
			t.Fatal(err)
		}
		if found := problems(t, dir); len(found) != 0 {
			t.Errorf("after renewal: %v", found)
		}
	})
}

func TestRenewKeepsWhatACertificateSaysAndRefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	dir := controlMachine(t)
	before := readAll(t, dir)
	renewed, err := Renew(dir, "apiserver")
	if err != nil || !slices.Equal(renewed, []string{"apiserver"}) {
		t.Fatalf("got %v, %v", renewed, err)
	}
	for name, content := range readAll(t, dir) {
		if changed := before[name] != content; changed != strings.HasPrefix(name, "apiserver.") {
			t.Errorf("%s: changed %v", name, changed)
		}
	}
	// It fits what EnsureControl asks for, so that a restart keeps it.
	after := readAll(t, dir)
	if _, err := EnsureControl(control(dir)); err != nil {
		t.Fatal(err)
	}
	if readAll(t, dir)["apiserver.crt"] != after["apiserver.crt"] {
		t.Error("the renewed certificate was replaced again")
	}
	for name, want := range map[string]string{"ca": "skiff pki rotate", "nobody": "no such certificate"} {
		if _, err := Renew(dir, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := Renew(dir, "apiserver"); err == nil || !strings.Contains(err.Error(), "does not have the key") {
		t.Errorf("got %v", err)
	}
	if renewed, err := Renew(dir); err != nil || !slices.Equal(renewed, []string{"front-proxy-client", "store-peer"}) {
		t.Errorf("got %v, %v", renewed, err)
	}
}

func TestAnAuthorityIsReplacedStepByStepAndEachStepMayBeRepeated(t *testing.T) {
	t.Parallel()
	dir := controlMachine(t)
	old, err := ReadBundle(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	serving, err := LoadIdentity(filepath.Join(dir, "apiserver.crt"), filepath.Join(dir, "apiserver.key"), filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	check := func(step string, stage Stage, trusted int, byOld bool) {
		t.Helper()
		if _, err := RenewDue(dir); err != nil {
			t.Fatal(err)
		}
		if again, err := RenewDue(dir); err != nil || len(again) != 0 {
			t.Errorf("%s: the second round changed %v, %v", step, again, err)
		}
		r, err := RotationOf(dir, "ca")
		if err != nil {
			t.Fatal(err)
		}
		certificate, _ := serving.Certificate()
		_, err = certificate.Leaf.Verify(x509.VerifyOptions{Roots: serving.Roots()})
		bundle, readErr := ReadBundle(filepath.Join(dir, "ca.crt"))
		if readErr != nil {
			t.Fatal(readErr)
		}
		if r.Stage != stage || len(bundle) != trusted || err != nil || (certificate.Leaf.CheckSignatureFrom(old[0]) == nil) != byOld {
			t.Errorf("%s: stage %s, %d trusted, %v; signed by the old one: %v", step, r.Stage, len(bundle), err, !byOld)
		}
		if found := problems(t, dir); len(found) != 0 {
			t.Errorf("%s: %v", step, found)
		}
		if _, err := EnsureControl(control(dir)); err != nil {
			t.Errorf("%s: a start in between: %v", step, err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if Adopt(dir, "ca") == nil || Retire(dir, "ca") == nil || Abandon(dir, "ca") == nil {
		t.Error("a step was taken out of order")
	}
	must(Introduce(dir, "ca"))
	must(Introduce(dir, "ca"))
	check("introduced", Trusting, 2, true)
	must(Abandon(dir, "ca"))
	check("abandoned", Settled, 1, true)
	must(Introduce(dir, "ca"))
	must(Adopt(dir, "ca"))
	check("adopted", Replacing, 2, false)
	if Introduce(dir, "ca") == nil {
		t.Error("a second replacement began before the first was complete")
	}
	must(Retire(dir, "ca"))
	check("retired", Settled, 1, false)
}
