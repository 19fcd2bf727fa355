package up

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/internal/pki"
	"github.com/skiff-run/skiff/internal/testenv"
)

// daemonUser is nobody's number on a test machine.
var daemonUser = account{user: 54321, group: 54322}

// owned is "user:group mode" of a path.
func owned(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	system := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d %s", system.Uid, system.Gid, info.Mode())
}

// prepared makes a control machine's files below a folder and hands them over.
func prepared(t *testing.T) *Options {
	t.Helper()
	testenv.RequireRoot(t)
	o := DefaultOptions()
	o.Root, o.NodeIP, o.NodeName = t.TempDir(), "192.0.2.77", "named"
	plan, err := o.Plan(operator.Control)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Save(plan); err != nil {
		t.Fatal(err)
	}
	if err := o.Prepare(plan); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(plan.Control.DataDir, "store"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := o.handOverTo(daemonUser); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestTheControlDaemonsUserGetsItsFilesAndNothingMore(t *testing.T) {
	t.Parallel()
	o := prepared(t)
	for path, want := range map[string]string{
		"etc/skiff":                   "0:0 drwxr-xr-x",
		"etc/skiff/control.yaml":      "0:54322 -rw-r-----",
		"etc/skiff/agent.yaml":        "0:0 -rw-------",
		"etc/skiff/proxy.yaml":        "0:0 -rw-------",
		"etc/skiff/admin.conf":        "0:0 Lrwxrwxrwx",
		"etc/skiff/agent.conf":        "0:0 Lrwxrwxrwx",
		"etc/skiff/pki":               "54321:0 dgrwx--x---",
		"etc/skiff/pki/ca.key":        "54321:0 -rw-------",
		"etc/skiff/pki/admin.conf":    "54321:0 -rw-------",
		"etc/skiff/pki/agent.conf":    "54321:0 -rw-------",
		"etc/skiff/pki/proxy.conf":    "54321:0 -rw-r-----",
		"var/lib/skiff":               "0:54322 drwx--x---",
		"var/lib/skiff/control":       "54321:54322 drwx------",
		"var/lib/skiff/control/store": "54321:54322 drwx------",
	} {
		if got := owned(t, filepath.Join(o.Root, path)); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}

func TestWhatRootWritesLaterIsTheUsersToo(t *testing.T) {
	t.Parallel()
	o := prepared(t)
	plan, err := o.Plan(operator.Control)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Save(plan); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.Renew(o.PKI()); err != nil {
		t.Fatal(err)
	}
	if err := pki.Introduce(o.PKI(), "ca"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"etc/skiff/control.yaml":      "0:54322 -rw-r-----",
		"etc/skiff/admin.conf":        "0:0 Lrwxrwxrwx",
		"etc/skiff/pki/admin.conf":    "54321:0 -rw-------",
		"etc/skiff/pki/proxy.conf":    "54321:0 -rw-r-----",
		"etc/skiff/pki/apiserver.key": "54321:0 -rw-------",
		"etc/skiff/pki/ca-next.key":   "54321:0 -rw-------",
	} {
		if got := owned(t, filepath.Join(o.Root, path)); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}

func TestHandingOverAgainChangesNothing(t *testing.T) {
	t.Parallel()
	o := prepared(t)
	before := everything(t, o.Root)
	if err := o.handOverTo(daemonUser); err != nil {
		t.Fatal(err)
	}
	for path, was := range everything(t, o.Root) {
		if before[path] != was {
			t.Errorf("%s: was %q, is %q", path, before[path], was)
		}
	}
}

func TestALinkInTheFolderOfCertificatesIsNotFollowed(t *testing.T) {
	t.Parallel()
	o := prepared(t)
	outside := filepath.Join(o.Root, "precious")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "proxy.conf"} {
		path := filepath.Join(o.PKI(), name)
		_ = os.Remove(path)
		if err := os.Symlink(outside, path); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.handOverTo(daemonUser); err == nil {
		t.Error("a link out of the folder in place of proxy.conf was taken for the file")
	}
	if got, want := owned(t, outside), "0:0 -rw-------"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// everything below a folder with its owner and mode.
func everything(t *testing.T, folder string) map[string]string {
	t.Helper()
	found := map[string]string{}
	if err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			found[path] = owned(t, path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return found
}
