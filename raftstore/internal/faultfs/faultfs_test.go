package faultfs

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skiff-run/skiff/raftstore/disk"
)

func random() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func create(t *testing.T, fs disk.FS, path, content string) disk.File {
	t.Helper()
	f, err := fs.OpenFile(path, os.O_CREATE|os.O_RDWR)
	if err == nil {
		_, err = f.Write([]byte(content))
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func read(fs disk.FS, path string) string {
	content, err := disk.ReadFile(fs, path)
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// TestPowerLossForgetsWhatWasNotSynced looks at a thousand losses of power:
// what was synced is always there, what was not sometimes is and sometimes not.
func TestPowerLossForgetsWhatWasNotSynced(t *testing.T) {
	t.Parallel()
	r := random()
	seen := map[string]int{}
	for range 1000 {
		d := New()
		fs := d.Mount()
		if err := fs.MakeDir("/a/b"); err != nil {
			t.Fatal(err)
		}
		if err := disk.WriteFile(fs, "/a/b/kept", []byte("old")); err != nil {
			t.Fatal(err)
		}
		f := create(t, fs, "/a/b/appended", "first")
		if err := errors.Join(f.Sync(), fs.SyncDir("/a/b")); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(bytes.Repeat([]byte("x"), 3*sector)); err != nil {
			t.Fatal(err)
		}
		create(t, fs, "/a/b/unnamed", "content")
		if err := fs.Rename("/a/b/kept", "/a/b/renamed"); err != nil {
			t.Fatal(err)
		}
		d.PowerLoss(r)
		if _, err := f.Write([]byte("of the dead")); err != nil {
			t.Fatalf("a dead process does not come to its end: %v", err)
		}
		fs = d.Mount()
		appended := read(fs, "/a/b/appended")
		switch {
		case appended == "first":
			seen["append lost"]++
		case appended[:5] != "first":
			t.Fatalf("synced content is gone: %q", appended)
		case bytes.Contains([]byte(appended), []byte{0}):
			seen["append torn"]++
		case len(appended) == 5+3*sector:
			seen["append kept"]++
		default:
			seen["append cut"]++
		}
		names, err := fs.ReadDir("/a/b")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			seen[name]++
		}
		if old, renamed := read(fs, "/a/b/kept"), read(fs, "/a/b/renamed"); (old == "old") == (renamed == "old") {
			t.Fatalf("after an unsynced rename there is %q and %q", old, renamed)
		}
	}
	for _, what := range []string{"append lost", "append torn", "append kept", "append cut", "unnamed", "kept", "renamed"} {
		if seen[what] == 0 || seen[what] == 1000 {
			t.Errorf("%s happened %d times in 1000", what, seen[what])
		}
	}
}

func TestKillKeepsThePageCache(t *testing.T) {
	t.Parallel()
	d := New()
	fs := d.Mount()
	create(t, fs, "/f", "unsynced")
	if _, err := fs.Lock("/LOCK"); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Lock("/LOCK"); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("locked twice: %v", err)
	}
	d.Kill()
	create(t, fs, "/of the dead", "")
	if _, err := fs.Lock("/LOCK"); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("the dead process' lock: %v", err)
	}
	fs = d.Mount()
	if names, err := fs.ReadDir("/"); err != nil || len(names) != 1 {
		t.Errorf("the next process finds %v, %v", names, err)
	}
	if got := read(fs, "/f"); got != "unsynced" {
		t.Errorf("the next process reads %q", got)
	}
	if _, err := fs.Lock("/LOCK"); err != nil {
		t.Errorf("the lock outlived its process: %v", err)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	d := New()
	fs := d.Mount()
	f := create(t, fs, "/f", "content")
	if err := errors.Join(f.Sync(), fs.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	d.SetFull(true)
	if _, err := f.Write([]byte("more")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("wrote to a full disk: %v", err)
	}
	if _, err := f.WriteAt([]byte("C"), 0); err != nil {
		t.Errorf("could not overwrite on a full disk: %v", err)
	}
	d.SetFull(false)
	d.SetFailing(true)
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("a failing disk synced: %v", err)
	}
	d.Heal()
	d.FailNextSync()
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("the sync that must fail: %v", err)
	}
	if err := f.Sync(); err != nil {
		t.Errorf("the sync after it: %v", err)
	}
	d.PowerLoss(random())
	fs = d.Mount()
	if got := read(fs, "/f"); got != "content" {
		t.Errorf("what a failed sync dropped is there: %q", got)
	}
	if err := d.FlipBit(random(), "/f"); err != nil {
		t.Fatal(err)
	}
	if got := read(fs, "/f"); got == "content" || len(got) != 7 {
		t.Errorf("after a flipped bit: %q", got)
	}
	if err := d.Delete("/f"); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.OpenFile("/f", os.O_RDONLY); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a deleted file opened: %v", err)
	}
}

func TestLyingDiskForgets(t *testing.T) {
	t.Parallel()
	d := New()
	d.SetLying(true, "")
	fs := d.Mount()
	if err := disk.WriteFile(fs, "/f", []byte("content")); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for d.PowerLoss(r); read(d.Mount(), "/f") == "content"; d.PowerLoss(r) {
		t.Log("lucky: it survived by chance")
		d = New()
		d.SetLying(true, "")
		if err := disk.WriteFile(d.Mount(), "/f", []byte("content")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSlowAndHungSyncs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := New()
		fs := d.Mount()
		f := create(t, fs, "/1.wal", "x")
		d.SetSlow(time.Second)
		began := time.Now()
		if err := f.Sync(); err != nil || time.Since(began) != time.Second {
			t.Errorf("slow sync took %s: %v", time.Since(began), err)
		}
		d.SetHung(true)
		time.AfterFunc(time.Minute, d.Heal)
		began = time.Now()
		if err := f.Sync(); err != nil || time.Since(began) != time.Minute {
			t.Errorf("hung sync took %s: %v", time.Since(began), err)
		}
		d.SetHung(true)
		time.AfterFunc(time.Minute, d.Kill)
		began = time.Now()
		if err := f.Sync(); err != nil || time.Since(began) != time.Minute {
			t.Errorf("sync of a process that was killed took %s: %v", time.Since(began), err)
		}
		if _, err := f.ReadAt(make([]byte, 1), 0); err != nil {
			t.Errorf("a dead process does not find what it had open: %v", err)
		}
	})
}
