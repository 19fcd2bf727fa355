package scheduler

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skiff-run/skiff/control/scheduler/framework"
)

func pop(t *testing.T, q *Queue) *Item {
	t.Helper()
	item, err := q.Pop(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return item
}

func TestHigherPriorityGoesFirstThenWhoWaitsLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue()
		for _, pod := range []*framework.PodInfo{info(t, makePod("low")), info(t, makePod("low2")), info(t, makePod("high", priority(9)))} {
			q.Put(pod, true)
			time.Sleep(time.Millisecond)
		}
		for _, want := range []string{"high", "low", "low2"} {
			if got := pop(t, q).Pod.Pod.Name; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
	})
}

func TestARetriedPodBacksOffTwiceAsLongEachTimeUpToTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue()
		q.Put(info(t, makePod("p")), true)
		item := pop(t, q)
		for _, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
			begin := time.Now()
			q.Retry(item)
			item = pop(t, q)
			if got := time.Since(begin); got != want*time.Second {
				t.Errorf("came back after %s, want %ds", got, want)
			}
		}
	})
}

func TestAnUnschedulablePodWaitsForAnEventThatHelpsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue()
		q.Put(info(t, makePod("p")), true)
		q.Unschedulable(pop(t, q), framework.NodeAdded)
		q.Happened(framework.AssignedPodRemoved)
		begin := time.Now()
		time.AfterFunc(20*time.Second, func() { q.Happened(framework.NodeAdded) })
		pop(t, q)
		if got := time.Since(begin); got != 21*time.Second {
			t.Errorf("came back after %s, want the event at 20s and 1s of back-off", got)
		}
	})
}

func TestWithoutAnyEventItIsTriedAgainAfterFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue()
		q.Put(info(t, makePod("p")), true)
		begin := time.Now()
		q.Unschedulable(pop(t, q), framework.NodeAdded)
		pop(t, q)
		if got := time.Since(begin); got != maxUnschedulableAge {
			t.Errorf("came back after %s", got)
		}
	})
}

func TestAnEventDuringTheDecisionIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue()
		q.Put(info(t, makePod("p")), true)
		item := pop(t, q)
		q.Happened(framework.NodeAdded)
		begin := time.Now()
		q.Unschedulable(item, framework.NodeAdded)
		pop(t, q)
		if got := time.Since(begin); got != initialBackoff {
			t.Errorf("came back after %s, want only the back-off", got)
		}
	})
}

func TestARemovedPodDoesNotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue()
		q.Put(info(t, makePod("p")), true)
		item := pop(t, q)
		q.Remove(item.Pod.Pod.UID)
		q.Retry(item)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if got, err := q.Pop(ctx); err == nil {
			t.Errorf("got %s", got.Pod.Pod.Name)
		}
	})
}
