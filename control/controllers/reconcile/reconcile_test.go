package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
)

// work runs a queue on f in virtual time until the test's function returns.
func work(t *testing.T, f Func[string], test func(*Queue[string])) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		queue := NewQueue("test", 2, slog.New(slog.DiscardHandler), f)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := Run(ctx, nil, queue); err != nil {
				t.Errorf("run: %v", err)
			}
		})
		test(queue)
		cancel()
		running.Wait()
	})
}

func TestFailedKeysComeBack(t *testing.T) {
	t.Parallel()
	terminating := apierrors.NewForbidden(schema.GroupResource{}, "x", errors.New("going"))
	terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	for name, tc := range map[string]struct {
		fail func(call int32) error
		want int32
	}{
		"a key that succeeds is done": {func(int32) error { return nil }, 1},
		"a failure is tried again":    {func(call int32) error { return map[bool]error{true: errors.New("no")}[call < 4] }, 4},
		"a defect is tried again and harms nobody": {func(call int32) error {
			return map[bool]func() error{true: func() error { panic("defect") }, false: func() error { return nil }}[call < 3]()
		}, 3},
		"nothing is tried again in a namespace that goes": {func(int32) error { return terminating }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int32
			work(t, func(context.Context, string) error { return tc.fail(calls.Add(1)) }, func(queue *Queue[string]) {
				queue.Add("key")
				time.Sleep(time.Second) // virtual
				synctest.Wait()
			})
			if calls.Load() != tc.want {
				t.Fatalf("%d calls, want %d", calls.Load(), tc.want)
			}
		})
	}
}

func TestKeyIsNeverWorkedOnTwiceAtOnce(t *testing.T) {
	t.Parallel()
	var at, most, calls atomic.Int32
	work(t, func(context.Context, string) error {
		most.Store(max(most.Load(), at.Add(1)))
		time.Sleep(time.Second)
		at.Add(-1)
		calls.Add(1)
		return nil
	}, func(queue *Queue[string]) {
		queue.Add("key")
		time.Sleep(100 * time.Millisecond)
		queue.Add("key")
		queue.Add("key")
		time.Sleep(10 * time.Second)
	})
	if most.Load() != 1 || calls.Load() != 2 {
		t.Fatalf("%d at once in %d calls, want 1 in 2", most.Load(), calls.Load())
	}
}

func TestHandlerSkipsUpdatesWithoutChange(t *testing.T) {
	t.Parallel()
	pod := func(version string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", ResourceVersion: version}}
	}
	var got []string
	handler := OnAny(func(pod *corev1.Pod) { got = append(got, pod.ResourceVersion) })
	handler.OnAdd(pod("1"), true)
	handler.OnUpdate(pod("1"), pod("1"))
	handler.OnUpdate(pod("1"), pod("2"))
	handler.OnDelete(cache.DeletedFinalStateUnknown{Key: "a", Obj: pod("3")})
	handler.OnDelete(cache.DeletedFinalStateUnknown{Key: "a", Obj: nil})
	if len(got) != 3 || got[2] != "3" {
		t.Fatalf("events %v, want 1 2 3", got)
	}
}
