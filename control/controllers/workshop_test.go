package controllers

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/retry"

	"github.com/skiff-run/skiff/control/controllers/deployment"
	"github.com/skiff-run/skiff/control/controllers/endpoints"
	"github.com/skiff-run/skiff/control/controllers/endpointslice"
	"github.com/skiff-run/skiff/control/controllers/endpointslicemirroring"
	"github.com/skiff-run/skiff/control/controllers/internal/fakeapi"
	"github.com/skiff-run/skiff/control/controllers/replicaset"
	"github.com/skiff-run/skiff/internal/testenv"
)

const limit = 20 * time.Second

// workshop is an API with the workload controllers, and an agent that makes every
// pod ready whose image is not "broken".
type workshop struct {
	t      *testing.T
	client kubernetes.Interface
	mu     sync.Mutex // guards the figures
	most   int        // pods at once
	least  int        // ready pods at once
	wanted int        // replicas of all sets at once
}

func newWorkshop(t *testing.T) *workshop {
	t.Helper()
	client := fakeapi.New()
	factory := informers.NewSharedInformerFactory(client, 0)
	w := &workshop{t: t, client: client}
	logger := slog.New(slog.DiscardHandler)
	deployments, err := deployment.New(client, factory, logger)
	if err != nil {
		t.Fatal(err)
	}
	sets, err := replicaset.New(client, factory, logger)
	if err != nil {
		t.Fatal(err)
	}
	endpointSlices, err := endpointslice.New(client, factory, logger)
	if err != nil {
		t.Fatal(err)
	}
	runners := []controller{
		deployments, sets, endpointSlices, endpoints.New(client, factory, logger), endpointslicemirroring.New(client, factory, logger),
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	pods := factory.Core().V1().Pods()
	if _, err := pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { w.agent(ctx, object.(*corev1.Pod)); w.count(pods.Informer().GetStore()) },
		UpdateFunc: func(_, object any) { w.agent(ctx, object.(*corev1.Pod)); w.count(pods.Informer().GetStore()) },
		DeleteFunc: func(any) { w.count(pods.Informer().GetStore()) },
	}); err != nil {
		t.Fatal(err)
	}
	replicaSets := factory.Apps().V1().ReplicaSets().Informer()
	if _, err := replicaSets.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { w.countWanted(replicaSets.GetStore()) },
		UpdateFunc: func(any, any) { w.countWanted(replicaSets.GetStore()) },
	}); err != nil {
		t.Fatal(err)
	}
	client.Start(ctx, factory)
	for _, runner := range runners {
		running.Go(func() {
			if err := runner.Run(ctx); err != nil {
				t.Errorf("controller stopped: %v", err)
			}
		})
	}
	t.Cleanup(func() { cancel(); running.Wait(); factory.Shutdown() })
	return w
}

// agent starts a pod.
func (w *workshop) agent(ctx context.Context, pod *corev1.Pod) {
	if pod.Status.Phase == corev1.PodRunning || strings.HasPrefix(pod.Spec.Containers[0].Image, "broken") {
		return
	}
	pod = pod.DeepCopy()
	pod.Spec.NodeName = "node"
	pod.Status.Phase, pod.Status.PodIP = corev1.PodRunning, "10.244.0."+strings.TrimLeft(pod.ResourceVersion, "0")
	pod.Status.PodIPs = []corev1.PodIP{{IP: pod.Status.PodIP}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
	// It may have been deleted; then there is nothing to start.
	_, _ = w.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
}

// count keeps the extremes of how many pods there are.
func (w *workshop) count(store cache.Store) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all, ready := 0, 0
	for _, object := range store.List() {
		all++
		if pod := object.(*corev1.Pod); len(pod.Status.Conditions) > 0 {
			ready++
		}
	}
	w.most, w.least = max(w.most, all), min(w.least, ready)
}

// countWanted keeps the highest sum of what the sets ask for. Pods may be more for
// a moment, since a set that was made smaller takes its time to delete them.
func (w *workshop) countWanted(store cache.Store) {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum := 0
	for _, object := range store.List() {
		sum += int(*object.(*appsv1.ReplicaSet).Spec.Replicas)
	}
	w.wanted = max(w.wanted, sum)
}

func (w *workshop) create(edit func(*appsv1.Deployment)) *appsv1.Deployment {
	w.t.Helper()
	quarter, replicas, history, deadline := intstr.FromString("25%"), int32(4), int32(10), int32(600)
	labels := map[string]string{"app": "web"}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, RevisionHistoryLimit: &history, ProgressDeadlineSeconds: &deadline,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &quarter, MaxUnavailable: &quarter},
			},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web:1"}}},
			},
		},
	}
	if edit != nil {
		edit(d)
	}
	created, err := w.client.AppsV1().Deployments("shop").Create(w.t.Context(), d, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return created
}

func (w *workshop) get() *appsv1.Deployment {
	w.t.Helper()
	d, err := w.client.AppsV1().Deployments("shop").Get(w.t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *workshop) edit(edit func(*appsv1.Deployment)) {
	w.t.Helper()
	if err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		d := w.get()
		edit(d)
		_, err := w.client.AppsV1().Deployments("shop").Update(w.t.Context(), d, metav1.UpdateOptions{})
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *workshop) sets() []appsv1.ReplicaSet {
	w.t.Helper()
	list, err := w.client.AppsV1().ReplicaSets("shop").List(w.t.Context(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return list.Items
}

func (w *workshop) pods() []corev1.Pod {
	w.t.Helper()
	list, err := w.client.CoreV1().Pods("shop").List(w.t.Context(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return list.Items
}

// settled waits until the rollout to the image is complete as kubectl rollout
// status sees it.
func (w *workshop) settled(image string, replicas int) {
	w.t.Helper()
	testenv.Eventually(w.t, limit, func() bool {
		d := w.get()
		pods := w.pods()
		return d.Status.ObservedGeneration >= d.Generation && int(d.Status.UpdatedReplicas) == replicas &&
			int(d.Status.Replicas) == replicas && int(d.Status.AvailableReplicas) == replicas && len(pods) == replicas &&
			reason(d, appsv1.DeploymentProgressing) == "NewReplicaSetAvailable" &&
			!slices.ContainsFunc(pods, func(pod corev1.Pod) bool { return pod.Spec.Containers[0].Image != image })
	}, "the rollout to %s is not complete", image)
}

func reason(d *appsv1.Deployment, conditionType appsv1.DeploymentConditionType) string {
	for _, c := range d.Status.Conditions {
		if c.Type == conditionType {
			return c.Reason
		}
	}
	return ""
}

func (w *workshop) events() []string {
	list, err := w.client.CoreV1().Events("shop").List(w.t.Context(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	var texts []string
	for _, event := range list.Items {
		texts = append(texts, fmt.Sprintf("%s %s: %s", event.Source.Component, event.Reason, event.Message))
	}
	return texts
}
