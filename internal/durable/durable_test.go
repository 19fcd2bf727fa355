package durable_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/skiff-run/skiff/internal/durable"
	"github.com/skiff-run/skiff/internal/testenv"
)

// state is what the tests compare of a file.
type state struct {
	content     string
	user, group uint32
	mode        fs.FileMode
}

func stateOf(t *testing.T, path string) state {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	system := info.Sys().(*syscall.Stat_t)
	return state{string(data), system.Uid, system.Gid, info.Mode()}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := durable.WriteFile(path, []byte(content)); err != nil {
		t.Fatal(err)
	}
}

func TestANewFileIsItsOwnersOnlyAndSoIsItsFolder(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "file")
	write(t, path, "one")
	want := state{"one", uint32(os.Geteuid()), uint32(os.Getegid()), 0o600}
	if got := stateOf(t, path); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %o, want 700", info.Mode().Perm())
	}
}

func TestAReplacedFileKeepsItsMode(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, "one")
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	write(t, path, "two")
	if got := stateOf(t, path); got.content != "two" || got.mode != 0o640 {
		t.Errorf("got %+v", got)
	}
}

func TestWhatRootWritesBelongsToTheOwnerOfTheFolder(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	folder := t.TempDir()
	if err := os.Chown(folder, 12345, 12346); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "file")
	write(t, path, "one")
	if got, want := stateOf(t, path), (state{"one", 12345, 12346, 0o600}); got != want {
		t.Errorf("new: got %+v, want %+v", got, want)
	}
	if err := os.Lchown(path, 12347, 12348); err != nil {
		t.Fatal(err)
	}
	write(t, path, "two")
	if got, want := stateOf(t, path), (state{"two", 12347, 12348, 0o600}); got != want {
		t.Errorf("replaced: got %+v, want %+v", got, want)
	}
}

func TestALinkStaysAndTheFileItNamesIsReplaced(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	link, target := filepath.Join(folder, "link"), filepath.Join(folder, "there", "file")
	if err := os.Symlink("there/file", link); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"one", "two"} {
		write(t, link, content)
		if got := stateOf(t, target); got.content != content {
			t.Errorf("got %q, want %q", got.content, content)
		}
	}
	if info, err := os.Lstat(link); err != nil || info.Mode().Type() != fs.ModeSymlink {
		t.Errorf("the link became %v, %v", info, err)
	}
}

func TestALinkOfAnotherUserLeadsNowhere(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	folder := t.TempDir()
	link, elsewhere := filepath.Join(folder, "link"), filepath.Join(folder, "elsewhere")
	write(t, elsewhere, "precious")
	if err := os.Symlink(elsewhere, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(link, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	write(t, link, "one")
	if got := stateOf(t, elsewhere); got.content != "precious" {
		t.Errorf("root wrote through a link of another user: %q", got.content)
	}
	if got := stateOf(t, link); got.content != "one" || got.mode.Type() != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestAFailedWriteLeavesNothingAndNamesThePath(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	path := filepath.Join(folder, "file")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "inside"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(path, []byte("one")); err == nil {
		t.Fatal("a folder was replaced by a file")
	}
	left, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 1 {
		t.Errorf("%d entries are left, want the folder only: %v", len(left), left)
	}
}
