package statuswriter

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

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
