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

func setImage(image string) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = image }
}

func TestDeploymentFromCreationToUndo(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	w.create(nil)
	w.settled("web:1", 4)
	first := w.sets()[0]
	if got := first.Annotations["deployment.kubernetes.io/revision"]; got != "1" {
		t.Errorf("first revision %q, want 1", got)
	}
	if w.get().Annotations["deployment.kubernetes.io/revision"] != "1" {
		t.Error("the deployment does not have the revision")
	}
	w.mu.Lock()
	w.wanted, w.least = 4, 4
	w.mu.Unlock()
	w.edit(setImage("web:2"))
	w.settled("web:2", 4)
	w.mu.Lock()
	wanted, least := w.wanted, w.least
	w.mu.Unlock()
	if wanted > 5 || least < 3 {
		t.Errorf("during the rollout up to %d pods were wanted and down to %d ready; want at most 5 and at least 3", wanted, least)
	}
	if len(w.sets()) != 2 {
		t.Fatalf("%d replica sets, want 2", len(w.sets()))
	}
	// What kubectl rollout undo does: it patches the old template back.
	w.edit(setImage("web:1"))
	w.settled("web:1", 4)
	for _, set := range w.sets() {
		if set.Name == first.Name && (set.Annotations["deployment.kubernetes.io/revision"] != "3" || set.Annotations["deployment.kubernetes.io/revision-history"] != "1") {
			t.Errorf("after the undo the first set has annotations %v", set.Annotations)
		}
	}
	for _, want := range []string{
		fmt.Sprintf("deployment-controller ScalingReplicaSet: Scaled up replica set %s from 0 to 4", first.Name),
		"replicaset-controller SuccessfulCreate: Created pod: " + first.Name + "-",
		"replicaset-controller SuccessfulDelete: Deleted pod: ",
	} {
		testenv.Eventually(t, limit, func() bool {
			return slices.ContainsFunc(w.events(), func(text string) bool { return strings.HasPrefix(text, want) })
		}, "no event %q", want)
	}
}

func TestDeletedPodIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	w.create(nil)
	w.settled("web:1", 4)
	victim := w.pods()[0].Name
	if err := w.client.CoreV1().Pods("shop").Delete(t.Context(), victim, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, limit, func() bool {
		pods := w.pods()
		return len(pods) == 4 && !slices.ContainsFunc(pods, func(pod corev1.Pod) bool { return pod.Name == victim || len(pod.Status.Conditions) == 0 })
	}, "the pod was not replaced")
}

func TestDeploymentScalesWithinABrokenRollout(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	w.create(nil)
	w.settled("web:1", 4)
	w.edit(setImage("broken:1"))
	sizes := func(old, broken int32) func() bool {
		return func() bool {
			got := map[string]int32{}
			for _, set := range w.sets() {
				got[set.Spec.Template.Spec.Containers[0].Image] = *set.Spec.Replicas
			}
			return got["web:1"] == old && got["broken:1"] == broken
		}
	}
	testenv.Eventually(t, limit, sizes(3, 2), "the broken rollout did not stop where it should")
	w.edit(func(d *appsv1.Deployment) { *d.Spec.Replicas = 8 })
	testenv.Eventually(t, limit, sizes(6, 4), "the sets were not scaled by their shares")
	w.edit(setImage("web:3"))
	w.settled("web:3", 8)
}

func TestPausedDeploymentDoesNotRoll(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	w.create(nil)
	w.settled("web:1", 4)
	w.edit(func(d *appsv1.Deployment) { d.Spec.Paused = true })
	testenv.Eventually(t, limit, func() bool { return reason(w.get(), appsv1.DeploymentProgressing) == "DeploymentPaused" }, "not told as paused")
	w.edit(func(d *appsv1.Deployment) { setImage("web:2")(d); *d.Spec.Replicas = 6 })
	testenv.Eventually(t, limit, func() bool { return len(w.pods()) == 6 }, "a paused deployment was not scaled")
	if len(w.sets()) != 1 {
		t.Fatal("a paused deployment was rolled out")
	}
	w.edit(func(d *appsv1.Deployment) { d.Spec.Paused = false })
	w.settled("web:2", 6)
}

func TestRecreateNeverMixesVersions(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	w.create(func(d *appsv1.Deployment) {
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	})
	w.settled("web:1", 4)
	w.edit(setImage("web:2"))
	w.settled("web:2", 4)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.most > 4 {
		t.Errorf("there were %d pods at once, want at most 4", w.most)
	}
}

func TestHistoryLimitAndHashCollision(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	w.create(func(d *appsv1.Deployment) { *d.Spec.RevisionHistoryLimit = 1 })
	w.settled("web:1", 4)
	for i := 2; i <= 4; i++ {
		image := fmt.Sprintf("web:%d", i)
		w.edit(setImage(image))
		w.settled(image, 4)
	}
	testenv.Eventually(t, limit, func() bool { return len(w.sets()) == 2 }, "old replica sets were kept")
}

func TestServiceEndpointsFollowPods(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	w.create(nil)
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"}, ClusterIP: "10.96.0.7", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080), Protocol: corev1.ProtocolTCP}},
		},
	}
	if _, err := w.client.CoreV1().Services("shop").Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	addresses := func() (slices, legacy int) {
		list, err := w.client.DiscoveryV1().EndpointSlices("shop").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, slice := range list.Items {
			slices += len(slice.Endpoints)
		}
		if object, err := w.client.CoreV1().Endpoints("shop").Get(t.Context(), "web", metav1.GetOptions{}); err == nil {
			for _, subset := range object.Subsets {
				legacy += len(subset.Addresses)
			}
		}
		return slices, legacy
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}
	if _, err := w.client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	follow := func(want int) {
		t.Helper()
		testenv.Eventually(t, limit, func() bool {
			slices, legacy := addresses()
			return slices == want && legacy == want
		}, "the endpoints do not have %d addresses", want)
	}
	follow(4)
	w.edit(func(d *appsv1.Deployment) { *d.Spec.Replicas = 2 })
	follow(2)
	if err := w.client.CoreV1().Services("shop").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, limit, func() bool { _, legacy := addresses(); return legacy == 0 }, "the endpoints outlived the service")
}

func TestEndpointsWithoutASelectorAreMirrored(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.8"}}
	if _, err := w.client.CoreV1().Services("shop").Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	object := &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"},
		Subsets:    []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "192.0.2.1"}}, Ports: []corev1.EndpointPort{{Port: 5432}}}},
	}
	object, err := w.client.CoreV1().Endpoints("shop").Create(t.Context(), object, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mirrored := func(want ...string) func() bool {
		return func() bool {
			list, err := w.client.DiscoveryV1().EndpointSlices("shop").List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, slice := range list.Items {
				for _, one := range slice.Endpoints {
					got = append(got, one.Addresses...)
				}
			}
			return slices.Equal(got, want)
		}
	}
	testenv.Eventually(t, limit, mirrored("192.0.2.1"), "the endpoints are not mirrored")
	object.Subsets[0].Addresses = append(object.Subsets[0].Addresses, corev1.EndpointAddress{IP: "192.0.2.2"})
	if _, err := w.client.CoreV1().Endpoints("shop").Update(t.Context(), object, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, limit, mirrored("192.0.2.1", "192.0.2.2"), "the change is not mirrored")
	if err := w.client.CoreV1().Services("shop").Delete(t.Context(), "db", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, limit, mirrored(), "the mirror outlived the service")
}
