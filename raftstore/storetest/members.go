package storetest

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/skiff-run/skiff/raftstore"
)

// Open opens a store of so many voting members, each with a directory and a
// port of its own. The first one leads. They are closed after the test.
func Open(t testing.TB, members int) []*raftstore.Store {
	t.Helper()
	authority := NewAuthority(t)
	dir := t.TempDir() // before the cleanup below, which then runs first
	var all []*raftstore.Store
	t.Cleanup(func() {
		// At once, or those that are left would elect a leader each time.
		var closing sync.WaitGroup
		for _, s := range all {
			closing.Go(func() {
				if err := s.Close(); err != nil {
					t.Errorf("close %s: %v", s.Status().MemberID, err)
				}
			})
		}
		closing.Wait()
	})
	for i := range members {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		id, address := fmt.Sprint("member-", i+1), listener.Addr().String()
		s, err := raftstore.Open(t.Context(), raftstore.Options{
			Dir: filepath.Join(dir, id), MemberID: id, Address: address, Join: i > 0, Network: authority.Network(t, id, listener),
			Logger: slog.New(slog.DiscardHandler), OnFatal: func(err error) { t.Errorf("%s: %v", id, err) },
		})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
		if i == 0 {
			continue
		}
		if err := all[0].AddMember(t.Context(), id, address); err != nil {
			t.Fatal(err)
		}
		join(t, all[0], s, id)
	}
	return all
}

// join waits until the member votes and has caught up.
func join(t testing.TB, leader, member *raftstore.Store, id string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		err := leader.PromoteMember(t.Context(), id)
		if err != nil && !errors.Is(err, raftstore.ErrRefused) {
			t.Fatal(err)
		}
		if err == nil {
			err = member.Ready()
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not catch up within a minute: %v", id, err)
		}
	}
}
