package raftstore

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestFailedDiskEndsTheStore(t *testing.T) {
	t.Parallel()
	fatal := make(chan error, 2)
	s := openStore(t, Options{OnFatal: func(err error) { fatal <- err }})
	mustPut(t, s, "/r/a/k", "v", 0)
	broken := errors.New("input/output error")
	_ = s.guard.Fail(broken)
	if err := <-fatal; !errors.Is(err, broken) {
		t.Errorf("told %v", err)
	}
	if _, err := s.Put(context.Background(), PutRequest{Key: "/r/a/k", ExpectModRevision: AnyRevision}); err == nil {
		t.Error("a write was acknowledged after the disk had failed")
	}
	if err := s.Health(context.Background()); !errors.Is(err, broken) {
		t.Errorf("health: %v", err)
	}
	if problem := s.Status().Problem; !strings.Contains(problem, broken.Error()) {
		t.Errorf("status: %q", problem)
	}
	if err := s.Close(); !errors.Is(err, broken) {
		t.Errorf("close: %v", err)
	}
	if len(fatal) != 0 {
		t.Errorf("told twice: %v", <-fatal)
	}
}

func TestLoneMemberWaitsForASlowDisk(t *testing.T) {
	t.Parallel()
	s := openStore(t, Options{})
	slow := errors.New("the disk has not answered")
	s.diskStalled(slow)
	if err := s.Health(context.Background()); !errors.Is(err, slow) {
		t.Errorf("health while the disk hangs: %v", err)
	}
	s.diskStalled(nil)
	if err := s.Health(context.Background()); err != nil {
		t.Errorf("health afterwards: %v", err)
	}
}
