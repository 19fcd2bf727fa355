package nodelifecycle

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"

	"github.com/skiff-run/skiff/control/controllers/internal/fakeapi"
	"github.com/skiff-run/skiff/control/controllers/podstate"
	"github.com/skiff-run/skiff/internal/testenv"
)

// fleet is an API with nodes whose agents renew their leases until they are told
// to stop.
type fleet struct {
	*testing.T
	client *fakeapi.Client
	stop   map[string]context.CancelFunc
}

func launch(t *testing.T, names ...string) *fleet {
	t.Helper()
	client := fakeapi.New()
	factory := informers.NewSharedInformerFactory(client, 0)
	options := DefaultOptions()
	options.MonitorGrace = 300 * time.Millisecond
	c, err := New(client, factory, options, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	client.Start(ctx, factory)
	var running sync.WaitGroup
	f := &fleet{T: t, client: client, stop: map[string]context.CancelFunc{}}
	for _, name := range names {
		if _, err := client.CoreV1().Nodes().Create(ctx, node(name, corev1.ConditionTrue), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "on-" + name}, Spec: corev1.PodSpec{NodeName: name}}
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		if _, err := client.CoreV1().Pods("shop").Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		agent, stop := context.WithCancel(ctx)
		f.stop[name] = stop
		running.Go(func() { f.renew(agent, name) })
	}
	running.Go(func() {
		if err := c.Run(ctx); err != nil {
			t.Errorf("node lifecycle: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait(); factory.Shutdown() })
	return f
}

func (f *fleet) renew(ctx context.Context, name string) {
	leases := f.client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: name}}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		now := metav1.NowMicro()
		lease.Spec.RenewTime = &now
		var err error
		if lease.ResourceVersion == "" {
			lease, err = leases.Create(ctx, lease, metav1.CreateOptions{})
		} else {
			lease, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
		}
		if err != nil {
			f.Errorf("renew lease: %v", err)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (f *fleet) node(name string) *corev1.Node {
	f.Helper()
	n, err := f.client.CoreV1().Nodes().Get(f.Context(), name, metav1.GetOptions{})
	if err != nil {
		f.Fatal(err)
	}
	return n
}

func (f *fleet) eventually(condition func() bool, message string) {
	f.Helper()
	testenv.Eventually(f, 20*time.Second, condition, "%s", message)
}

func (f *fleet) podReady(node string) bool {
	pod, err := f.client.CoreV1().Pods("shop").Get(f.Context(), "on-"+node, metav1.GetOptions{})
	if err != nil {
		f.Fatal(err)
	}
	return podstate.Ready(pod)
}

func TestSilentNodeIsGivenUpAndComesBack(t *testing.T) {
	t.Parallel()
	f := launch(t, "a", "b", "c")
	f.stop["b"]()
	f.eventually(func() bool { return status(f.node("b"), corev1.NodeReady) == corev1.ConditionUnknown }, "the silent node is still ready")
	f.eventually(func() bool { return drivingTaint(f.node("b")) != nil }, "the silent node does not drive its pods away")
	f.eventually(func() bool { return !f.podReady("b") }, "the silent node's pod is still ready")
	if status(f.node("a"), corev1.NodeReady) != corev1.ConditionTrue || !f.podReady("a") {
		t.Error("another node was given up with it")
	}
	f.eventually(func() bool {
		events, err := f.client.CoreV1().Events("").List(f.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		all := ""
		for _, event := range events.Items {
			all += event.Source.Component + " " + event.Message + "\n"
		}
		return strings.Contains(all, "node-controller Node b status is now: NodeNotReady") && strings.Contains(all, "Node a event: Registered Node a in Controller")
	}, "the events are missing")
	back := f.node("b")
	for i := range back.Status.Conditions {
		back.Status.Conditions[i].Status = corev1.ConditionFalse
		back.Status.Conditions[i].LastHeartbeatTime = metav1.Now()
	}
	condition(back, corev1.NodeReady).Status = corev1.ConditionTrue
	if _, err := f.client.CoreV1().Nodes().UpdateStatus(t.Context(), back, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	f.eventually(func() bool { return len(f.node("b").Spec.Taints) == 0 }, "the node that is back keeps its taints")
}

func TestWhenAllNodesAreSilentNoPodIsDrivenAway(t *testing.T) {
	t.Parallel()
	f := launch(t, "a", "b")
	f.stop["a"]()
	f.stop["b"]()
	f.eventually(func() bool {
		for _, name := range []string{"a", "b"} {
			n := f.node(name)
			if status(n, corev1.NodeReady) != corev1.ConditionUnknown || len(n.Spec.Taints) != 1 || drivingTaint(n) != nil {
				return false
			}
		}
		return true
	}, "the lost nodes do not end with the one taint that keeps new pods away")
}
