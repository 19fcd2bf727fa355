package raftstore

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestSubscribersSettleBeforeLeadershipEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLeadership()
		careful, careless := l.subscribe(), l.subscribe()
		<-careful.C
		careful.Settled()
		l.set(true)
		if !<-careful.C || !<-careless.C {
			t.Fatal("not told of leadership")
		}
		careful.Settled()

		began := time.Now()
		go func() {
			if <-careful.C {
				t.Error("told that it leads")
			}
			time.Sleep(500 * time.Millisecond)
			careful.Settled()
		}()
		ctx, cancel := context.WithTimeout(t.Context(), settleTime)
		defer cancel()
		l.resign(ctx)
		if took := time.Since(began); took != 500*time.Millisecond {
			t.Errorf("waited %s for a subscriber that needed half a second", took)
		}
		if leading, _ := l.get(); leading {
			t.Error("leads after resigning")
		}
		l.set(true) // raft has not noticed yet
		if leading, _ := l.get(); leading {
			t.Error("leads although it is giving leadership up")
		}
		l.resume()
		if leading, _ := l.get(); !leading {
			t.Error("handing over failed, but it does not lead again")
		}
		// Nobody settles now: the wait is bounded.
		began = time.Now()
		ctx, cancel = context.WithTimeout(t.Context(), settleTime)
		defer cancel()
		l.resign(ctx)
		if took := time.Since(began); took != settleTime {
			t.Errorf("waited %s for a subscriber that does not settle", took)
		}
		careful.Close()
		l.resign(t.Context()) // who closed is not waited for
		careless.Close()
	})
}

func TestSettledBeforeTheNewestAnswerDoesNotCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLeadership()
		s := l.subscribe()
		defer s.Close()
		<-s.C
		s.Settled()
		l.set(true)
		<-s.C
		go func() {
			time.Sleep(time.Second)
			s.Settled() // means the answer before the one it did not receive yet
			time.Sleep(time.Second)
			<-s.C
			s.Settled()
		}()
		synctest.Wait()
		began := time.Now()
		l.resign(t.Context())
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("settled after %s", took)
		}
	})
}

func TestResigningTooLateDoesNotOutliveTheNextLeadership(t *testing.T) {
	t.Parallel()
	l := newLeadership()
	l.set(true)
	l.set(false) // raft was quicker than who hands leadership over
	l.resign(t.Context())
	l.lost()
	l.set(true)
	if leading, _ := l.get(); !leading {
		t.Error("raft made it leader again, but it does not lead")
	}
	l.resign(t.Context())
	l.lost()
	if leading, _ := l.get(); leading {
		t.Error("it leads while it gives up what it has")
	}
}
