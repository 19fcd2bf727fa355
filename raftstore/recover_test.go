package raftstore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore/disk"
)

// survivor makes the directory of a member whose two fellow voters are gone:
// with a snapshot, log after it, and an entry nobody committed.
func survivor(t *testing.T) (dir string, want RangeResult, history []Event) {
	t.Helper()
	dir, want, history = storeWithSnapshots(t)
	log, err := openLogOffline(disk.OS, dir, Options{Logger: quiet(), SegmentSize: 8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	_, last, err := log.Bounds()
	if err != nil {
		t.Fatal(err)
	}
	id, err := readIdentity(disk.OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	members := raft.Configuration{Servers: []raft.Server{
		{ID: raft.ServerID(id.ID), Address: "10.0.0.1:6444"},
		{ID: "lost", Address: "10.0.0.2:6444"},
		{ID: "gone", Address: "10.0.0.3:6444"},
		{ID: "new", Address: "10.0.0.4:6444", Suffrage: raft.Nonvoter},
	}}
	entry := &raft.Log{Index: last + 1, Term: 7, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(members), AppendedAt: time.Now()}
	if err := errors.Join(log.StoreLog(entry), log.Stable().SetUint64([]byte(keyCurrentTerm), 9), log.Close()); err != nil {
		t.Fatal(err)
	}
	return dir, want, history
}

func TestSurvivorBecomesTheOnlyVoter(t *testing.T) {
	t.Parallel()
	dir, want, _ := survivor(t)
	before, err := readIdentity(disk.OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	info, err := Recover(dir, "10.0.0.9:6444")
	if err != nil {
		t.Fatal(err)
	}
	lost := []FormerMember{{"lost", "10.0.0.2:6444", true}, {"gone", "10.0.0.3:6444", true}, {"new", "10.0.0.4:6444", false}}
	if !reflect.DeepEqual(info.FormerMembers, lost) || info.Revision != want.Revision || info.MemberID != before.ID ||
		info.FormerClusterID != before.ClusterID || info.ClusterID == before.ClusterID || info.LastIndex < 500 || info.LastWrite.IsZero() {
		t.Errorf("info %+v", info)
	}
	s := openStore(t, Options{Dir: dir})
	sameContent(t, s, want)
	servers := s.raft.GetConfiguration().Configuration().Servers
	if len(servers) != 1 || string(servers[0].ID) != before.ID || servers[0].Address != "10.0.0.9:6444" {
		t.Errorf("members %+v", servers)
	}
	if s.Revision() != info.NewRevision || info.NewRevision < info.Revision+minJump || s.ClusterID() != info.ClusterID {
		t.Errorf("revision %d of cluster %s, told %+v", s.Revision(), s.ClusterID(), info)
	}
	if _, err := s.Watch("", want.Revision); !errors.Is(err, ErrCompacted) {
		t.Errorf("a watch goes on over the recovery: %v", err)
	}
	if r := mustPut(t, s, "/r/pods/p1", "x", AnyRevision); !r.Succeeded || r.Revision != info.NewRevision+1 {
		t.Errorf("put: %+v", r)
	}
}

func TestRecoverRefuses(t *testing.T) {
	t.Parallel()
	s := openStore(t, Options{})
	if _, err := Recover(s.options.Dir, ""); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a running member: %v", err)
	}
	empty := t.TempDir()
	if _, err := Recover(empty, ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
	if names, err := os.ReadDir(empty); err != nil || len(names) != 0 {
		t.Errorf("it left %v there, %v", names, err)
	}
	waiting := t.TempDir()
	if err := (identity{ID: "never added"}).keep(disk.OS, waiting); err != nil {
		t.Fatal(err)
	}
	if _, err := Recover(waiting, ""); err == nil || !strings.Contains(err.Error(), "nothing to recover") {
		t.Errorf("a member that never belonged to a cluster: %v", err)
	}
	damaged, _, _ := survivor(t)
	for _, path := range snapshotFiles(t, damaged) {
		damageFile(t, path)
	}
	if _, err := Recover(damaged, ""); err == nil {
		t.Error("a damaged member was recovered")
	}
}

func TestInterruptedRecoveryIsRunAgain(t *testing.T) {
	t.Parallel()
	source, want, _ := survivor(t)
	former, err := readIdentity(disk.OS, source)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	dir := func(round int) string { return filepath.Join(root, string(rune('a'+round))) }
	killEverywhere(t, func(fs disk.FS, round int) error {
		if err := os.CopyFS(dir(round), os.DirFS(source)); err != nil {
			t.Fatal(err)
		}
		_, err := recoverMember(fs, dir(round), "")
		return err
	}, func(round int) {
		id, err := readIdentity(disk.OS, dir(round))
		if err != nil {
			t.Fatal(err)
		}
		log, err := openLogOffline(disk.OS, dir(round), Options{Logger: quiet(), SegmentSize: 8 << 10})
		if err != nil {
			t.Fatalf("step %d: %v", round, err)
		}
		snapshots, err := disk.OpenSnapshots(disk.OS, filepath.Join(dir(round), snapshotDir), snapshotsKept)
		if err != nil {
			t.Fatal(err)
		}
		p, err := replay(log, snapshots, Options{Logger: quiet()})
		if err := errors.Join(err, log.Close()); err != nil {
			t.Fatal(err)
		}
		if len(p.members.Servers) == 1 && id.ClusterID == former.ClusterID {
			t.Errorf("killed at step %d it leads alone under the name of the lost cluster", round)
		}
		if _, err := Recover(dir(round), ""); err != nil {
			t.Fatalf("again after step %d: %v", round, err)
		}
		s, err := Open(context.Background(), Options{Dir: dir(round), Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		sameContent(t, s, want)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
