package raftstore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore/disk"
	"github.com/skiff-run/skiff/raftstore/internal/inject"
)

// files lists a member's files by a pattern below its directory.
func (c *cluster) files(id, pattern string) []string {
	c.t.Helper()
	found, err := filepath.Glob(filepath.Join(c.dirs[id], pattern))
	if err != nil || len(found) == 0 {
		c.t.Fatalf("no %s below %s: %v", pattern, c.dirs[id], err)
	}
	return found
}

// replace brings a damaged member back as a new one, and says which.
func (c *cluster) replace(id string) string {
	c.t.Helper()
	o := c.options
	o.Dir, o.MemberID, o.Address, o.Network, o.Logger = c.dirs[id], id, addressOf(id), c.hub.port(addressOf(id)), quiet()
	done, err := Replace(c.t.Context(), o)
	if err != nil {
		c.t.Fatalf("replace %s: %v", id, err)
	}
	if done.FormerID != id || done.MemberID == id {
		c.t.Errorf("replaced: %+v", done)
	}
	if err := filepath.WalkDir(done.Aside, func(string, fs.DirEntry, error) error { return nil }); err != nil {
		c.t.Error(err)
	}
	c.dirs[done.MemberID] = c.dirs[id]
	delete(c.dirs, id)
	c.open(done.MemberID, addressOf(id), false) // it never founds a cluster
	c.eventually("the new member votes", func() bool {
		m := find(c.leader().configuration().Servers, done.MemberID)
		return m != nil && m.Suffrage == 0
	})
	return done.MemberID
}

func TestDamagedMemberComesBackAsANewOne(t *testing.T) {
	t.Parallel()
	remove := func(pattern string) func(c *cluster) {
		return func(c *cluster) {
			for _, path := range c.files("c", pattern) {
				if err := os.Remove(path); err != nil {
					c.t.Fatal(err)
				}
			}
		}
	}
	damage := func(pattern string) func(c *cluster) {
		return func(c *cluster) {
			for _, path := range c.files("c", pattern) {
				damageFile(c.t, path)
			}
		}
	}
	cases := []struct {
		name   string
		damage func(c *cluster)
	}{
		{"flipped bits in the log", func(c *cluster) {
			content, err := os.ReadFile(c.files("c", "log/*.wal")[0])
			if err != nil {
				c.t.Fatal(err)
			}
			for at := 300; at < len(content); at += 700 {
				content[at] ^= 0x40
			}
			if err := os.WriteFile(c.files("c", "log/*.wal")[0], content, 0o600); err != nil {
				c.t.Fatal(err)
			}
		}},
		{"a log cut in half", func(c *cluster) {
			for _, path := range c.files("c", "log/*.wal") {
				if err := os.Truncate(path, 2000); err != nil {
					c.t.Fatal(err)
				}
			}
		}},
		{"deleted segments", remove("log/*.wal")},
		{"deleted metadata", remove("log/meta")},
		{"damaged metadata", damage("log/meta")},
		{"a deleted high-water mark", remove("log/high-water")},
		{"damaged snapshots", damage("snapshots/*.snap")},
		{"deleted snapshots", remove("snapshots/*.snap")},
	}
	for _, k := range cases {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, cutShort, "a", "b", "c")
			c.write(c.leader(), "k", 60)
			c.agree()
			for _, s := range c.members { // so that the log begins behind a snapshot
				for range 2 {
					c.write(c.leader(), "filler", 2)
					if err := s.archivist.snapshot(); err != nil {
						t.Fatal(err)
					}
				}
			}
			c.write(c.leader(), "more", 60)
			c.agree()
			c.stop("c")
			k.damage(c)
			o := c.options
			o.Dir, o.MemberID, o.Logger = c.dirs["c"], "c", quiet()
			var damage *DamageError
			if s, err := Open(t.Context(), o); err == nil {
				_ = s.Close()
				t.Fatal("the damage was not noticed")
			} else if !errors.As(err, &damage) {
				t.Errorf("the error does not say that it is damage: %v", err)
			}
			c.write(c.leader(), "meanwhile", 20)
			c.replace("c")
			c.write(c.leader(), "after", 20)
			c.agree()
			if n := len(c.list()); n != 3 {
				t.Errorf("%d members", n)
			}
		})
	}
}

// frailDisk is the real file system, which fails from a certain change of a file on.
type frailDisk struct {
	disk.FS
	left *int
}

var errFrail = errors.New("the process ends here")

func (d frailDisk) change() error {
	if *d.left--; *d.left < 0 {
		return errFrail
	}
	return nil
}

func (d frailDisk) Rename(from, to string) error {
	if err := d.change(); err != nil {
		return err
	}
	return d.FS.Rename(from, to)
}

func (d frailDisk) SyncDir(dir string) error {
	if err := d.change(); err != nil {
		return err
	}
	return d.FS.SyncDir(dir)
}

// TestReplacementIsInterruptedAtEachStep: until the new member is there, nothing
// in the directory opens, and least of all as the founder of a cluster.
func TestReplacementIsInterruptedAtEachStep(t *testing.T) {
	t.Parallel()
	c := newCluster(t, cutShort, "a", "b", "c")
	c.write(c.leader(), "k", 60)
	c.agree()
	founder := "a"
	if c.leader().id.ID == founder {
		if err := c.leader().TransferLeadership(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		c.eventually("b leads", func() bool { return c.members["b"].IsLeader() })
	}
	if err := c.members[founder].archivist.snapshot(); err != nil {
		t.Fatal(err)
	}
	c.stop(founder)
	damageFile(t, c.files(founder, "log/meta")[0])
	o := c.options
	o.Dir, o.Address, o.Logger = c.dirs[founder], addressOf(founder), quiet()
	interrupted := 0
	for steps := 0; ; steps++ {
		left := steps
		o.Inject, o.Network = &inject.Parts{FS: frailDisk{disk.OS, &left}}, c.hub.port(o.Address)
		_, err := Replace(t.Context(), o)
		if err == nil {
			break
		}
		if !errors.Is(err, errFrail) {
			t.Fatal(err)
		}
		interrupted++
		var damage *DamageError
		if id, _ := readIdentity(disk.OS, o.Dir); id.ID != founder {
			continue // the new member, complete
		}
		if _, err := EnsureMember(o.Dir, founder, false); steps > 0 && !errors.As(err, &damage) {
			t.Fatalf("after %d steps: %v", steps, err)
		}
	}
	if interrupted < 5 {
		t.Errorf("it was interrupted %d times", interrupted)
	}
	id, err := EnsureMember(o.Dir, founder, false) // the configuration still has the former name
	if err != nil || id == founder {
		t.Fatalf("the new member is %q: %v", id, err)
	}
	c.dirs[id] = c.dirs[founder]
	c.open(id, addressOf(founder), false, func(o *Options) { o.MemberID = founder })
	c.write(c.leader(), "after", 20)
	c.agree()
	c.eventually("it votes", func() bool {
		m := find(c.leader().configuration().Servers, id)
		return m != nil && m.Suffrage == raft.Voter
	})
	if n := len(c.list()); n != 3 {
		t.Errorf("%d members", n)
	}
	// What was damaged once may be damaged again.
	c.stop(id)
	damageFile(t, c.files(id, "log/meta")[0])
	c.replace(id)
	c.agree()
}

// TestReplacementGoesOnWithAnotherLeader: the leader that replaces a member ends
// after one of its steps.
func TestReplacementGoesOnWithAnotherLeader(t *testing.T) {
	t.Parallel()
	steps := map[string]func(ctx context.Context, s *Store, next string) error{
		"its address is taken": func(ctx context.Context, s *Store, next string) error { return s.makeRoom(ctx, "c", next) },
		"its successor is in": func(ctx context.Context, s *Store, next string) error {
			return errors.Join(s.makeRoom(ctx, "c", next), s.add(ctx, next, addressOf("c")))
		},
		"all is done but said": func(ctx context.Context, s *Store, next string) error {
			return s.replaced(ctx, "c", []string{"c", next, addressOf("c")})
		},
	}
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, Options{}, "a", "b", "c")
			c.write(c.leader(), "k", 20)
			c.stop("c")
			damageFile(t, c.files("c", "log/meta")[0])
			id, err := readIdentity(disk.OS, c.dirs["c"])
			if err != nil {
				t.Fatal(err)
			}
			next, err := successorOf(Options{Dir: c.dirs["c"]}, id)
			if err != nil {
				t.Fatal(err)
			}
			first := c.leader()
			if err := step(t.Context(), first, next.ID); err != nil {
				t.Fatal(err)
			}
			if err := first.TransferLeadership(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			c.eventually("the other leads", func() bool { return c.leader() != first })
			if replaced := c.replace("c"); replaced != next.ID {
				t.Errorf("it is %s now, not %s", replaced, next.ID)
			}
			c.write(c.leader(), "after", 20)
			c.agree()
			if n := len(c.list()); n != 3 {
				t.Errorf("%d members", n)
			}
		})
	}
}

// TestRemovedMemberIsNotReplaced: what an operator removed does not come back by
// being damaged.
func TestRemovedMemberIsNotReplaced(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Options{}, "a", "b", "c")
	c.stop("c")
	if err := c.leader().RemoveMember(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	damageFile(t, c.files("c", "log/meta")[0])
	o := Options{Dir: c.dirs["c"], Address: addressOf("c"), Network: c.hub.port(addressOf("c")), Logger: quiet()}
	if _, err := Replace(t.Context(), o); !errors.Is(err, ErrRemoved) {
		t.Errorf("got %v", err)
	}
	if n := len(c.list()); n != 2 {
		t.Errorf("%d members", n)
	}
}

// TestNobodyReplacesTheOnlyMember: nobody else has its state.
func TestNobodyReplacesTheOnlyMember(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Options{}, "a")
	c.write(c.leader(), "k", 1)
	c.stop("a")
	damageFile(t, c.files("a", "log/meta")[0])
	o := Options{Dir: c.dirs["a"], Address: addressOf("a"), Network: c.hub.port(addressOf("a")), Logger: quiet()}
	if _, err := Replace(t.Context(), o); err == nil || !strings.Contains(err.Error(), "the only member") {
		t.Errorf("got %v", err)
	}
}

func TestReplacementThatLosesTheMajorityIsRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Options{}, "a", "b", "c")
	c.stop("c")
	follower := c.follower().id.ID
	c.hub.isolate(follower, true)
	o := Options{Dir: c.dirs["c"], Address: addressOf("c"), Network: c.hub.port(addressOf("c")), Logger: quiet()}
	ctx, cancel := context.WithTimeout(t.Context(), lonelyAfter)
	defer cancel()
	if _, err := Replace(ctx, o); err == nil {
		t.Fatal("a majority was given away")
	}
	if _, err := os.Stat(filepath.Join(c.dirs["c"], identityName)); err != nil {
		t.Errorf("files were moved: %v", err)
	}
	c.hub.isolate(follower, false)
	c.replace("c")
	c.agree()
}

func TestRunningMemberIsNotReplaced(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Options{}, "a", "b", "c")
	o := Options{Dir: c.dirs["c"], Address: addressOf("c"), Network: newHub().port("x"), Logger: quiet()}
	if _, err := Replace(t.Context(), o); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("%v", err)
	}
}

// brokenDisk is the real file system on which writing the log fails.
type brokenDisk struct {
	disk.FS
	with *atomic.Pointer[error]
}

func (d brokenDisk) OpenFile(path string, flag int) (disk.File, error) {
	f, err := d.FS.OpenFile(path, flag)
	if err != nil || !strings.HasSuffix(path, ".wal") {
		return f, err
	}
	return brokenFile{f, d.with}, nil
}

type brokenFile struct {
	disk.File
	with *atomic.Pointer[error]
}

func (f brokenFile) WriteAt(p []byte, at int64) (int, error) {
	if err := f.with.Load(); err != nil && errors.Is(*err, syscall.ENOSPC) {
		return 0, *err
	}
	return f.File.WriteAt(p, at)
}

func (f brokenFile) Sync() error {
	if err := f.with.Load(); err != nil {
		return *err
	}
	return f.File.Sync()
}

// TestMemberWithAFailingDiskStopsAndComesBack: a full disk, a failing sync.
func TestMemberWithAFailingDiskStopsAndComesBack(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{"full": syscall.ENOSPC, "failing": syscall.EIO} {
		for _, who := range []string{"the leader", "a follower"} {
			t.Run(who+"'s disk is "+name, func(t *testing.T) {
				t.Parallel()
				c := &cluster{t: t, hub: newHub(), members: map[string]*Store{}, dirs: map[string]string{}, options: Options{SegmentSize: 8 << 10}}
				disks, fatal := map[string]brokenDisk{}, make(chan error, 3)
				for i, id := range []string{"a", "b", "c"} {
					disks[id] = brokenDisk{disk.OS, new(atomic.Pointer[error])}
					c.open(id, addressOf(id), i > 0, func(o *Options) {
						o.Inject = &inject.Parts{FS: disks[id]}
						o.OnFatal = func(err error) { fatal <- err }
					})
					if i > 0 {
						c.add(id)
					}
				}
				c.write(c.leader(), "before", 30)
				victim := c.leader()
				if who != "the leader" {
					victim = c.follower()
				}
				id := victim.id.ID
				disks[id].with.Store(&failure)
				others := func() *Store {
					for other, s := range c.members {
						if other != id {
							return s
						}
					}
					return nil
				}
				c.write(others(), "during", 30)
				if err := <-fatal; !errors.Is(err, failure) {
					t.Errorf("it ended by %v", err)
				}
				if problem := victim.Status().Problem; !strings.Contains(problem, failure.Error()) {
					t.Errorf("it says %q", problem)
				}
				_ = victim.Close() // it says that it had failed
				delete(c.members, id)
				c.write(c.leader(), "meanwhile", 30)
				disks[id].with.Store(nil) // room again
				c.reopened(id)
				c.write(c.leader(), "after", 10)
				c.agree()
				if len(fatal) > 0 {
					t.Errorf("another member ended: %v", <-fatal)
				}
			})
		}
	}
}
