package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-run/skiff/internal/pki"
)

// runSkiff runs the command line and returns what it printed.
func runSkiff(t *testing.T, args ...string) (string, error) {
	t.Helper()
	command := newCommand()
	var out bytes.Buffer
	command.SetOut(&out)
	command.SetErr(&out)
	command.SetArgs(args)
	err := command.ExecuteContext(t.Context())
	return out.String(), err
}

func TestCertificatesAreCheckedRenewedAndReplacedByCommand(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir := filepath.Join(root, "etc/skiff/pki")
	authority, err := pki.EnsureControl(pki.Control{Dir: dir, ServiceCIDR: "10.96.0.0/16", ClusterDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.EnsureKubeconfig(filepath.Join(root, "etc/skiff/admin.conf"), "skiff", "https://10.0.0.1:6443", "kubernetes-admin", pki.AdminGroup); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		args  []string
		want  []string // in the output
		fails string   // in the error
	}{
		{args: []string{"check"}, want: []string{"NAME", "admin.conf", "CN=kube-apiserver", "3649", "364"}},
		{args: []string{"renew", "apiserver"}, want: []string{"renewed: apiserver"}},
		{args: []string{"renew", "ca"}, fails: "skiff pki rotate"},
		{args: []string{"rotate"}, want: []string{"Settled", "front-proxy-ca"}},
		{args: []string{"rotate", "--advance", "ca"}, fails: "no replacement has begun"},
		{args: []string{"rotate", "nothing"}, fails: "invalid argument"},
		{args: []string{"rotate", "--begin", "--advance"}, fails: "exclude each other"},
		{args: []string{"rotate", "--begin", "ca"}, want: []string{"Trusting", "at the earliest on"}},
		{args: []string{"rotate", "--abandon", "ca"}, want: []string{"Settled"}},
		{args: []string{"rotate", "--begin", "ca", "front-proxy-ca"}, want: []string{"Trusting"}},
		{args: []string{"rotate", "--advance"}, want: []string{"Replacing", "the one before is trusted until"}},
		{args: []string{"check"}, want: []string{"364"}},
		{args: []string{"rotate", "--advance"}, want: []string{"Settled"}},
		{args: []string{"check", "-o", "yaml"}, fails: `"yaml"`},
	} {
		name := strings.Join(step.args, " ")
		out, err := runSkiff(t, append([]string{"pki", "--root", root}, step.args...)...)
		if (err != nil) != (step.fails != "") || (err != nil && !strings.Contains(err.Error(), step.fails)) {
			t.Fatalf("%s: got %v, want %q\n%s", name, err, step.fails, out)
		}
		for _, want := range step.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q is missing in\n%s", name, want, out)
			}
		}
	}
	out, err := runSkiff(t, "pki", "check", "--root", root, "-o", "json")
	var found []pki.Certificate
	if err != nil || json.Unmarshal([]byte(out), &found) != nil || len(found) != 6 || found[0].Name != "ca" || found[0].DaysLeft != 3649 {
		t.Errorf("got %v, %s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "apiserver.crt"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err = runSkiff(t, "pki", "check", "--root", root)
	if err == nil || !strings.Contains(err.Error(), "1 of 6 certificates have a problem") || !strings.Contains(out, "holds no PEM certificate") {
		t.Errorf("got %v\n%s", err, out)
	}
}
