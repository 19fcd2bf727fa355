package atomicdir

import (
	"os"
	"path/filepath"
	"testing"
)

func read(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestWriteReplacesTheWholeSetAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(files map[string]File) bool {
		t.Helper()
		changed, err := Write(dir, files, nil)
		if err != nil {
			t.Fatal(err)
		}
		return changed
	}
	first := map[string]File{"a": {Data: []byte("1"), Mode: 0o644}, "d/b": {Data: []byte("2"), Mode: 0o600}}
	if !write(first) || read(t, dir, "a") != "1" || read(t, dir, "d/b") != "2" {
		t.Error("the first set is not there")
	}
	if write(first) {
		t.Error("the same set was written again")
	}
	before, err := os.Readlink(filepath.Join(dir, "..data"))
	if err != nil {
		t.Fatal(err)
	}
	if !write(map[string]File{"a": {Data: []byte("3"), Mode: 0o644}}) || read(t, dir, "a") != "3" {
		t.Error("the second set is not there")
	}
	for _, gone := range []string{"d", before} {
		if _, err := os.Lstat(filepath.Join(dir, gone)); !os.IsNotExist(err) {
			t.Errorf("%s is still there", gone)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "a")); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestACrashBetweenTheStepsIsRepaired(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := map[string]File{"a": {Data: []byte("1"), Mode: 0o644}}
	if _, err := Write(dir, files, nil); err != nil {
		t.Fatal(err)
	}
	// The link readers use was not made yet, and a temporary one was left over.
	if err := os.Remove(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..nowhere", filepath.Join(dir, newDataLink)); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(dir, files, nil); err != nil || read(t, dir, "a") != "1" {
		t.Errorf("not repaired: %v", err)
	}
	if _, err := Write(dir, map[string]File{"b": {Mode: 0o644}}, nil); err != nil {
		t.Errorf("the next set: %v", err)
	}
}

func TestNamesThatLeadAstrayAreRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "/etc/passwd", "../x", "a/../../x", "..data", "a/../b"} {
		if _, err := Write(t.TempDir(), map[string]File{name: {}}, nil); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
}
