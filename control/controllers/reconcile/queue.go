package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/workqueue"
)

// The delay before a failed key is tried again doubles from the first of these
// to the last.
const (
	firstRetry = 5 * time.Millisecond
	lastRetry  = 5 * time.Minute
)

// ErrBehind says that what a controller reads is older than what it wrote, so that
// it has to look again a moment later. It is expected now and then.
var ErrBehind = errors.New("the informer is behind what was written")

// Func brings the world one step closer to what the object behind key asks for.
// It must be idempotent. A key is never worked on by two workers at once.
type Func[K comparable] func(ctx context.Context, key K) error

// Queue holds the keys that need work, each at most once, and the workers that
// do it.
type Queue[K comparable] struct {
	name    string
	workers int
	work    Func[K]
	logger  *slog.Logger
	keys    workqueue.TypedRateLimitingInterface[K]
}

// NewQueue returns a queue whose keys are handled by work on the given number of
// workers once it runs.
func NewQueue[K comparable](name string, workers int, logger *slog.Logger, work Func[K]) *Queue[K] {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[K](firstRetry, lastRetry)
	return &Queue[K]{
		name: name, workers: workers, work: work, logger: logger,
		keys: workqueue.NewTypedRateLimitingQueue(limiter),
	}
}

// Add asks for work on key now.
func (q *Queue[K]) Add(key K) { q.keys.Add(key) }

// AddAfter asks for work on key when delay has passed. Of several delays for one
// key the shortest counts.
func (q *Queue[K]) AddAfter(key K, delay time.Duration) { q.keys.AddAfter(key, delay) }

// Retry asks for work on key after the delay its failures have earned.
func (q *Queue[K]) Retry(key K) { q.keys.AddRateLimited(key) }

// Len tells how many keys wait for a worker.
func (q *Queue[K]) Len() int { return q.keys.Len() }

// Close ends the queue. Keys added later are dropped.
func (q *Queue[K]) Close() { q.keys.ShutDown() }

// run works until ctx ends and returns when the last worker has.
func (q *Queue[K]) run(ctx context.Context) {
	var workers sync.WaitGroup
	for range q.workers {
		workers.Go(func() {
			for q.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	q.keys.ShutDown()
	workers.Wait()
}

// next handles one key; it returns false when the queue has been shut down.
func (q *Queue[K]) next(ctx context.Context) bool {
	key, shutdown := q.keys.Get()
	if shutdown {
		return false
	}
	defer q.keys.Done(key)
	if ctx.Err() != nil {
		return true
	}
	err := q.guarded(ctx, key)
	switch {
	case err == nil:
		q.keys.Forget(key)
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		// Nothing can be created any more, and the namespace takes the rest along.
		q.keys.Forget(key)
	case ctx.Err() != nil:
	default:
		q.keys.AddRateLimited(key)
		level := slog.LevelWarn
		if apierrors.IsConflict(err) || errors.Is(err, ErrBehind) {
			level = slog.LevelDebug // Somebody else wrote first, or it was us; the informer will tell.
		}
		q.logger.Log(ctx, level, "reconciling failed; it will be tried again", "queue", q.name, "key", key, "error", err)
	}
	return true
}

// guarded keeps a defect met by one object from taking down the control plane:
// the key is retried like any failure while all others go on.
func (q *Queue[K]) guarded(ctx context.Context, key K) (err error) {
	defer func() {
		if caught := recover(); caught != nil {
			err = fmt.Errorf("defect in %s: %v\n%s", q.name, caught, debug.Stack())
		}
	}()
	return q.work(ctx, key)
}
