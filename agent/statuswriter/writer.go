// Package statuswriter brings pod statuses to the API server.
//
// It keeps only the newest status of each pod, writes it as a patch of the
// status subresource when the API says otherwise, and never writes what is
// there already. Pods that are finished are removed from the API after their
// last status was written. Failed writes are tried again with back-off.
package statuswriter

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"

	"github.com/skiff-run/skiff/agent/podstatus"
)

// workers write at the same time, for different pods.
const workers = 4

// Writer writes statuses.
type Writer struct {
	client kubernetes.Interface
	logger *slog.Logger
	queue  workqueue.TypedRateLimitingInterface[types.UID]

	// mu guards what follows.
	mu      sync.Mutex
	records map[types.UID]*record
	// failing are the pods whose last write did not succeed.
	failing map[types.UID]bool
}

// longestRetry is the longest wait before a write that failed is tried again. The
// first that succeeds after the API was away has all others tried at once.
const longestRetry = 10 * time.Second

// record is what is known and wanted of one pod.
type record struct {
	pod    *v1.Pod
	wanted *v1.PodStatus
	// written is what the API is known to have, and version the pod's resource
	// version there.
	written *v1.PodStatus
	version string
	remove  bool
}

// New returns a writer.
func New(client kubernetes.Interface, logger *slog.Logger) *Writer {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](100*time.Millisecond, longestRetry)
	return &Writer{client: client, logger: logger, queue: workqueue.NewTypedRateLimitingQueue(limiter), records: map[types.UID]*record{}, failing: map[types.UID]bool{}}
}

// Run writes until ctx ends.
func (w *Writer) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for w.one(ctx) {
			}
		})
	}
	<-ctx.Done()
	w.queue.ShutDown()
	wg.Wait()
}

// Set writes the status some time soon, unless the API says the same.
func (w *Writer) Set(pod *v1.Pod, status *v1.PodStatus) { w.set(pod, status, false) }

// Finish writes what is pending and then removes the pod from the API.
func (w *Writer) Finish(pod *v1.Pod, status *v1.PodStatus) { w.set(pod, status, true) }

func (w *Writer) set(pod *v1.Pod, status *v1.PodStatus, remove bool) {
	w.mu.Lock()
	r := w.records[pod.UID]
	if r == nil {
		r = &record{written: &pod.Status, version: pod.ResourceVersion}
		w.records[pod.UID] = r
	}
	r.pod, r.wanted = pod, status
	r.remove = r.remove || remove
	idle := !r.remove && podstatus.Equal(r.written, r.wanted)
	w.mu.Unlock()
	if !idle {
		w.queue.Add(pod.UID)
	}
}

// Observed tells the writer what the API has. True says that somebody else
// changed the status: the node controller says that the pods of a lost node are
// not ready, for example, and has to be contradicted when the node is back.
func (w *Writer) Observed(pod *v1.Pod) (contradicted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.records[pod.UID]
	if r == nil || pod.ResourceVersion == r.version || older(pod.ResourceVersion, r.version) {
		return false // nothing was said yet, or this is older than what we wrote
	}
	r.version = pod.ResourceVersion
	switch {
	case podstatus.Equal(&pod.Status, r.wanted):
		r.written = r.wanted // our own write came back before its answer did
		return false
	case podstatus.Equal(&pod.Status, r.written):
		return false
	}
	r.written = &pod.Status
	return true
}

// older says whether a resource version is older than another. The API's
// versions are numbers; what is none is never older.
func older(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order < 0
}

// Forget drops what is kept about a pod.
func (w *Writer) Forget(uid types.UID) {
	w.mu.Lock()
	delete(w.records, uid)
	delete(w.failing, uid)
	w.mu.Unlock()
}

// one handles one pod; false: the queue is closed.
func (w *Writer) one(ctx context.Context) bool {
	uid, shutdown := w.queue.Get()
	if shutdown {
		return false
	}
	defer w.queue.Done(uid)
	w.mu.Lock()
	r := w.records[uid]
	var c record
	if r != nil {
		c = *r
	}
	w.mu.Unlock()
	if r == nil {
		w.queue.Forget(uid)
		return true
	}
	if err := w.write(ctx, r, c); err != nil {
		if ctx.Err() == nil {
			w.mu.Lock()
			again := w.failing[uid]
			w.failing[uid] = true
			w.mu.Unlock()
			if !again {
				w.logger.Warn("write a pod's status; trying again", "pod", c.pod.Name, "namespace", c.pod.Namespace, "error", err)
			}
			w.queue.AddRateLimited(uid)
		}
		return true
	}
	w.queue.Forget(uid)
	w.succeeded(uid)
	return true
}

// succeeded has the writes that failed before tried at once: the API is back.
func (w *Writer) succeeded(uid types.UID) {
	w.mu.Lock()
	failing := w.failing
	delete(failing, uid)
	w.failing = map[types.UID]bool{}
	w.mu.Unlock()
	for other := range failing {
		w.queue.Forget(other)
		w.queue.Add(other)
	}
}

func (w *Writer) write(ctx context.Context, r *record, c record) error {
	if !podstatus.Equal(c.written, c.wanted) {
		patch, err := Patch(c.pod.UID, c.written, c.wanted)
		if err != nil {
			return err
		}
		after, err := w.client.CoreV1().Pods(c.pod.Namespace).Patch(ctx, c.pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		switch {
		case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
			// The pod is gone, or another one has its name: the UID in the patch says so.
			w.Forget(c.pod.UID)
			return nil
		case err != nil:
			return fmt.Errorf("patch the status: %w", err)
		}
		w.mu.Lock()
		if after != nil && after.UID == c.pod.UID && !older(after.ResourceVersion, r.version) {
			r.version = after.ResourceVersion
			// What the server made of it counts, lest a difference in spelling repeats the write.
			r.written = c.wanted
		}
		w.mu.Unlock()
	}
	if !c.remove {
		return nil
	}
	zero := int64(0)
	err := w.client.CoreV1().Pods(c.pod.Namespace).Delete(ctx, c.pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero, Preconditions: metav1.NewUIDPreconditions(string(c.pod.UID)),
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("remove the finished pod: %w", err)
	}
	return nil
}

// Patch is the strategic merge patch from one status to another. It carries
// the UID, so that it never hits a pod that was made anew under the same name.
func Patch(uid types.UID, from, to *v1.PodStatus) ([]byte, error) {
	before, err := json.Marshal(&v1.Pod{Status: *from})
	if err != nil {
		return nil, fmt.Errorf("encode the old status: %w", err)
	}
	after, err := json.Marshal(&v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}, Status: *to})
	if err != nil {
		return nil, fmt.Errorf("encode the new status: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, v1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("compare two statuses: %w", err)
	}
	return patch, nil
}
