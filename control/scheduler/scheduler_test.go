package scheduler

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/skiff-run/skiff/internal/testenv"
)

// api is a fake API whose bindings set the pod's node as the real one does.
func api(t *testing.T, bindErrors int, objects ...runtime.Object) *fake.Clientset {
	t.Helper()
	client := fake.NewClientset(objects...)
	var mu sync.Mutex
	client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		create := action.(clienttesting.CreateAction)
		if create.GetSubresource() != "binding" {
			return false, nil, nil
		}
		mu.Lock()
		defer mu.Unlock()
		if bindErrors > 0 {
			bindErrors--
			return true, nil, apierrors.NewInternalError(errors.New("the store is away"))
		}
		binding := create.GetObject().(*corev1.Binding)
		resource := schema.GroupVersionResource{Version: "v1", Resource: "pods"}
		object, err := client.Tracker().Get(resource, binding.Namespace, binding.Name)
		if err != nil {
			return true, nil, err
		}
		pod := object.(*corev1.Pod).DeepCopy()
		pod.Spec.NodeName = binding.Target.Name
		return true, binding, client.Tracker().Update(resource, pod, binding.Namespace)
	})
	return client
}

func run(t *testing.T, client *fake.Clientset) {
	t.Helper()
	factory := informers.NewSharedInformerFactory(client, 0)
	s := New(client, factory, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	factory.Core().V1().Pods().Informer()
	factory.Core().V1().Nodes().Informer()
	factory.StartWithContext(ctx)
	factory.WaitForCacheSync(ctx.Done())
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		factory.Shutdown()
	})
}

func getPod(t *testing.T, client *fake.Clientset, name string) *corev1.Pod {
	t.Helper()
	pod, err := client.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func TestPodsAreBoundEvenAfterABindingFailed(t *testing.T) {
	t.Parallel()
	client := api(t, 1, makeNode("a"), makePod("p"), makePod("other", func(p *corev1.Pod) { p.Spec.SchedulerName = "theirs" }))
	run(t, client)
	testenv.Eventually(t, 20*time.Second, func() bool { return getPod(t, client, "p").Spec.NodeName == "a" }, "pod is not bound")
	if node := getPod(t, client, "other").Spec.NodeName; node != "" {
		t.Errorf("another scheduler's pod was bound to %s", node)
	}
	testenv.Eventually(t, 20*time.Second, func() bool {
		events, err := client.EventsV1().Events("default").List(t.Context(), metav1.ListOptions{})
		return err == nil && len(events.Items) == 1 && events.Items[0].Reason == "Scheduled" &&
			events.Items[0].Note == "Successfully assigned default/p to a" && events.Items[0].ReportingController == Name
	}, "no Scheduled event")
}

func TestAPendingPodSaysWhyAndIsBoundWhenANodeComes(t *testing.T) {
	t.Parallel()
	client := api(t, 0, makeNode("a"), makePod("p", requests("3")))
	run(t, client)
	testenv.Eventually(t, 20*time.Second, func() bool {
		for _, condition := range getPod(t, client, "p").Status.Conditions {
			if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse && condition.Reason == corev1.PodReasonUnschedulable {
				return strings.HasPrefix(condition.Message, "0/1 nodes are available: 1 Insufficient cpu.")
			}
		}
		return false
	}, "the condition does not say why")
	large := makeNode("b", func(n *corev1.Node) { n.Status.Allocatable[corev1.ResourceCPU] = *n.Status.Allocatable.Memory() })
	if _, err := client.CoreV1().Nodes().Create(t.Context(), large, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 20*time.Second, func() bool { return getPod(t, client, "p").Spec.NodeName == "b" }, "pod is not bound to the new node")
}

func TestAMoreImportantPodTakesThePlaceOfALesserOne(t *testing.T) {
	t.Parallel()
	client := api(t, 0, makeNode("a"), makePod("lesser", on("a"), requests("1500m")), makePod("p", requests("1"), priority(100)))
	run(t, client)
	testenv.Eventually(t, 20*time.Second, func() bool { return getPod(t, client, "p").Spec.NodeName == "a" }, "pod is not bound")
	if _, err := client.CoreV1().Pods("default").Get(t.Context(), "lesser", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the lesser pod: %v", err)
	}
}
