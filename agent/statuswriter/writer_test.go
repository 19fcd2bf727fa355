package statuswriter

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/skiff-run/skiff/internal/testenv"
)

func TestOnlyChangesAreWrittenAndTheLastWordComesBeforeTheEnd(t *testing.T) {
	t.Parallel()
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}, Status: v1.PodStatus{Phase: v1.PodPending}}
	client := fake.NewClientset(pod)
	ctx, cancel := context.WithCancel(t.Context())
	w := New(client, slog.New(slog.NewTextHandler(io.Discard, nil)))
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	writes := func() (patches, deletes int) {
		for _, a := range client.Actions() {
			switch a.GetVerb() {
			case "patch":
				patches++
			case "delete":
				deletes++
			}
		}
		return patches, deletes
	}
	w.Set(pod, &v1.PodStatus{Phase: v1.PodPending})
	w.Set(pod, &v1.PodStatus{Phase: v1.PodRunning})
	testenv.Eventually(t, 5*time.Second, func() bool {
		p, err := client.CoreV1().Pods("ns").Get(ctx, "p", metav1.GetOptions{})
		return err == nil && p.Status.Phase == v1.PodRunning
	}, "the phase is written")
	w.Set(pod, &v1.PodStatus{Phase: v1.PodRunning})
	w.Finish(pod, &v1.PodStatus{Phase: v1.PodSucceeded})
	testenv.Eventually(t, 5*time.Second, func() bool { _, deletes := writes(); return deletes == 1 }, "the pod is removed")
	if patches, _ := writes(); patches != 2 {
		t.Errorf("%d patches, want 2", patches)
	}
	cancel()
	<-done
}

func TestPatchCarriesTheUIDAndOnlyWhatChanged(t *testing.T) {
	t.Parallel()
	from := &v1.PodStatus{Phase: v1.PodPending, Conditions: []v1.PodCondition{{Type: "Ready", Status: "False"}, {Type: "example.com/x", Status: "True"}}}
	to := from.DeepCopy()
	to.Phase, to.Conditions[0].Status = v1.PodRunning, "True"
	patch, err := Patch("u", from, to)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"metadata":{"uid":"u"},"status":{"$setElementOrder/conditions":[{"type":"Ready"},{"type":"example.com/x"}],"conditions":[{"status":"True","type":"Ready"}],"phase":"Running"}}`
	if string(patch) != want {
		t.Errorf("got  %s\nwant %s", patch, want)
	}
}

// A status that others changed is written again; one of ours that comes late by
// the watch is not.
func TestWhoContradictsIsContradicted(t *testing.T) {
	t.Parallel()
	status := func(ready v1.ConditionStatus) *v1.PodStatus {
		return &v1.PodStatus{Phase: v1.PodRunning, Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: ready}}}
	}
	version := func(number string, s *v1.PodStatus) *v1.Pod {
		return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u", ResourceVersion: number}, Status: *s}
	}
	pending := &v1.PodStatus{Phase: v1.PodPending}
	writes := 0
	client := fake.NewClientset(version("1", pending))
	client.PrependReactor("patch", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		writes++
		return true, version([]string{"", "3", "7"}[writes], status(v1.ConditionTrue)), nil
	})
	w := New(client, slog.New(slog.NewTextHandler(io.Discard, nil)))
	turn := func() {
		for w.queue.Len() > 0 {
			w.one(t.Context())
		}
	}
	w.Set(version("1", pending), status(v1.ConditionTrue))
	turn()
	if writes != 1 {
		t.Fatalf("%d writes at first", writes)
	}
	for _, late := range []*v1.Pod{version("2", pending), version("3", status(v1.ConditionTrue)), version("4", status(v1.ConditionTrue))} {
		if w.Observed(late) {
			t.Errorf("version %s is taken for somebody else's", late.ResourceVersion)
		}
	}
	other := version("5", status(v1.ConditionFalse))
	if !w.Observed(other) || w.Observed(other) {
		t.Error("what somebody else wrote is not noticed, or noticed twice")
	}
	w.Set(other, status(v1.ConditionTrue))
	turn()
	if writes != 2 {
		t.Errorf("%d writes after somebody else's, want 2", writes)
	}
	if w.Observed(other) {
		t.Error("what was contradicted already is noticed again")
	}
	w.Set(other, status(v1.ConditionTrue))
	turn()
	if writes != 2 {
		t.Errorf("%d writes when nothing is to say, want 2", writes)
	}
}

func TestStatusesCatchUpAtOnceWhenTheAPIIsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var objects []runtime.Object
		var pods []*v1.Pod
		for _, name := range []string{"a", "b", "c", "d"} {
			pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID(name)}, Status: v1.PodStatus{Phase: v1.PodPending}}
			pods, objects = append(pods, pod), append(objects, pod)
		}
		client := fake.NewClientset(objects...)
		var away atomic.Bool
		client.PrependReactor("patch", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
			return away.Load(), nil, errors.New("connection refused")
		})
		ctx, cancel := context.WithCancel(t.Context())
		w := New(client, slog.New(slog.DiscardHandler))
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx) }()
		away.Store(true)
		for i, pod := range pods {
			w.Set(pod, &v1.PodStatus{Phase: v1.PodRunning})
			// They fail at different times.
			time.Sleep(time.Duration(i) * time.Second)
		}
		time.Sleep(5 * time.Minute)
		away.Store(false)
		written := func() (n int) {
			for _, pod := range pods {
				if p, err := client.CoreV1().Pods("ns").Get(ctx, pod.Name, metav1.GetOptions{}); err == nil && p.Status.Phase == v1.PodRunning {
					n++
				}
			}
			return n
		}
		for waited := time.Duration(0); written() == 0; waited += 100 * time.Millisecond {
			if waited > longestRetry {
				t.Fatal("no status is written")
			}
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		if n := written(); n != len(pods) {
			t.Errorf("with the first status %d of %d are written", n, len(pods))
		}
		cancel()
		<-done
	})
}
