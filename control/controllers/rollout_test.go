package controllers

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/skiff-run/skiff/internal/testenv"
)

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
