package pki

import (
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

func control(dir string) Control {
	return Control{Dir: dir, Names: []string{"host1"}, Addresses: []net.IP{net.IPv4(192, 168, 56, 10)}, ServiceCIDR: "10.96.0.0/16", ClusterDomain: "cluster.local"}
}

func TestASecondRunChangesNothingAndEveryFileIsPrivate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := EnsureControl(control(dir)); err != nil {
		t.Fatal(err)
	}
	before := readAll(t, dir)
	if len(before) != 12 {
		t.Errorf("%d files, want 12: %v", len(before), before)
	}
	if _, err := EnsureControl(control(dir)); err != nil {
		t.Fatal(err)
	}
	for name, content := range readAll(t, dir) {
		if before[name] != content {
			t.Errorf("%s changed", name)
		}
	}
}

func TestTheServerCertificateIsRenewedWhenTheMachineGetsAnotherAddress(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := EnsureControl(control(dir)); err != nil {
		t.Fatal(err)
	}
	before := readAll(t, dir)
	moved := control(dir)
	moved.Addresses = []net.IP{net.IPv4(192, 168, 56, 99)}
	authority, err := EnsureControl(moved)
	if err != nil {
		t.Fatal(err)
	}
	after := readAll(t, dir)
	if before["apiserver.crt"] == after["apiserver.crt"] || before["ca.crt"] != after["ca.crt"] {
		t.Error("want a new server certificate of the same authority")
	}
	certificate, err := parseCertificate([]byte(after["apiserver.crt"]))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(authority.Certificate)
	for _, name := range []string{"192.168.56.99", "10.96.0.1", "127.0.0.1", "kubernetes.default.svc.cluster.local", "host1"} {
		if _, err := certificate.Verify(x509.VerifyOptions{Roots: pool, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDamageIsNamedAndNothingIsReplacedBehindTheBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := EnsureControl(control(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	_, err := EnsureControl(control(dir))
	if err == nil || !strings.Contains(err.Error(), "ca.key") || !strings.Contains(err.Error(), "restore the key") {
		t.Errorf("got %v", err)
	}
}

func TestAKubeconfigIsKeptUntilItsServerChanges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	authority, err := EnsureControl(control(dir))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "admin.conf")
	write := func(server string) string {
		t.Helper()
		if err := authority.EnsureKubeconfig(path, "skiff", server, "kubernetes-admin", AdminGroup); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	first := write("https://10.0.0.1:6443")
	if write("https://10.0.0.1:6443") != first {
		t.Error("an unchanged kubeconfig was written again")
	}
	if write("https://10.0.0.2:6443") == first {
		t.Error("the new server was not written")
	}
	loaded, err := clientcmd.LoadFromFile(path)
	if err != nil || loaded.CurrentContext != "kubernetes-admin@skiff" {
		t.Errorf("got %v, %v", loaded, err)
	}
}

func readAll(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", entry.Name(), info.Mode().Perm())
		}
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[entry.Name()] = string(data)
	}
	return files
}
