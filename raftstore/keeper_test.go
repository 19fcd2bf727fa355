package raftstore

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// Virtual time: the clock of these tests moves only when every goroutine of
// the store waits for it.

func TestKeysExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, Options{Dir: dir})
		put := func(key string, ttl int64) {
			t.Helper()
			if _, err := s.Put(context.Background(), PutRequest{Key: key, ExpectModRevision: AnyRevision, TTLSeconds: ttl}); err != nil {
				t.Fatal(err)
			}
		}
		has := func(key string) bool {
			synctest.Wait()
			kv, _, err := s.Get(key, 0)
			if err != nil {
				t.Fatal(err)
			}
			return kv != nil
		}
		put("/r/a/long", 3600)
		put("/r/a/short", 10)
		put("/r/a/renewed", 10)
		for i := range 600 {
			put(fmt.Sprintf("/r/many/%d", i), 20)
		}
		time.Sleep(9 * time.Second)
		if !has("/r/a/short") {
			t.Error("expired early")
		}
		put("/r/a/renewed", 10)
		time.Sleep(3 * time.Second)
		if has("/r/a/short") {
			t.Error("did not expire")
		}
		if !has("/r/a/renewed") || s.Count("/r/many/") != 600 {
			t.Error("renewed or later keys are gone")
		}
		before := s.Revision()
		time.Sleep(30 * time.Second)
		if has("/r/a/renewed") || s.Count("/r/many/") != 0 {
			t.Error("keys did not expire together")
		}
		if s.Revision() != before+601 {
			t.Errorf("%d revisions for 601 expiries", s.Revision()-before)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		s = openStore(t, Options{Dir: dir}) // a new leader arms the old expiries
		time.Sleep(2 * time.Second)
		if has("/r/a/long") {
			t.Error("a key whose time came while the store was down is still there")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestHistoryIsCompactedByAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{HistoryAge: 5 * time.Minute})
		for range 100 {
			mustPut(t, s, "/r/a/k", "v", AnyRevision)
		}
		time.Sleep(4 * time.Minute)
		for range 10 {
			mustPut(t, s, "/r/a/k", "v", AnyRevision)
		}
		synctest.Wait()
		if _, _, err := s.Get("/r/a/k", 50); err != nil {
			t.Errorf("four minutes old history: %v", err)
		}
		time.Sleep(150 * time.Second)
		synctest.Wait()
		if _, _, err := s.Get("/r/a/k", 50); !errors.Is(err, ErrCompacted) {
			t.Errorf("six minutes old history: %v", err)
		}
		if _, _, err := s.Get("/r/a/k", 105); err != nil {
			t.Errorf("two minutes old history: %v", err)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n := s.Status().HistoryEvents; n != 0 {
			t.Errorf("%d old events kept", n)
		}
		if s.Revision() != 111 {
			t.Errorf("compaction consumed revisions: %d", s.Revision())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestHistoryIsBoundedByCountAndBytes(t *testing.T) {
	t.Parallel()
	cases := map[string]Options{
		"count": {HistoryEvents: 500},
		"bytes": {HistoryBytes: 300 << 10},
	}
	for name, o := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := openStore(t, o)
				for range 3000 {
					if _, err := s.Put(context.Background(), PutRequest{Key: "/r/a/k", Value: make([]byte, 500), ExpectModRevision: AnyRevision}); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				status := s.Status()
				if status.HistoryEvents > 520 || status.HistoryEvents < 200 {
					t.Errorf("%d events, %d bytes kept", status.HistoryEvents, status.HistoryBytes)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

func TestStoreAtRestWritesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Options{})
		mustPut(t, s, "/r/a/k", "v", AnyRevision)
		time.Sleep(10 * time.Minute) // the history is compacted away
		synctest.Wait()
		before := s.Status().LogIndex
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if after := s.Status().LogIndex; after != before {
			t.Errorf("%d log entries were written at rest", after-before)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
