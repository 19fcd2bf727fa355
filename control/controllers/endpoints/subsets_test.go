package endpoints

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func service(edit func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Labels: map[string]string{"tier": "front"}},
		Spec: corev1.ServiceSpec{
			ClusterIP: "10.96.0.7", Selector: map[string]string{"app": "web"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("web"), Protocol: corev1.ProtocolTCP}},
		},
	}
	if edit != nil {
		edit(s)
	}
	return s
}

func pod(number int, ready bool) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("p", number), UID: types.UID(fmt.Sprint("u", number))},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{
			Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
		}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	p.Status.PodIP = fmt.Sprintf("10.244.%d.%d", number/250, number%250+1)
	p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}}
	if ready {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	return p
}

// text writes subsets as a person would.
func text(subsets []corev1.EndpointSubset) []string {
	var lines []string
	for _, subset := range subsets {
		line := ""
		for _, address := range subset.Addresses {
			line += address.IP + " "
		}
		for _, address := range subset.NotReadyAddresses {
			line += "(" + address.IP + ") "
		}
		for _, port := range subset.Ports {
			line += fmt.Sprintf("%s:%d", port.Name, port.Port)
		}
		lines = append(lines, line)
	}
	return lines
}

func TestDesired(t *testing.T) {
	t.Parallel()
	other := pod(3, true)
	other.Spec.Containers[0].Ports[0].ContainerPort = 9090
	for name, tc := range map[string]struct {
		service  *corev1.Service
		pods     []*corev1.Pod
		want     []string
		headless bool
	}{
		"ready and unready pods of one port share a subset": {service(nil), []*corev1.Pod{pod(2, true), pod(1, false), pod(0, true)}, []string{"10.244.0.1 10.244.0.3 (10.244.0.2) http:8080"}, false},
		"a named port differs by pod":                       {service(nil), []*corev1.Pod{pod(0, true), other}, []string{"10.244.0.1 http:8080", "10.244.0.4 http:9090"}, false},
		"unready addresses are published when asked": {
			service(func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true }), []*corev1.Pod{pod(0, false)}, []string{"10.244.0.1 http:8080"}, false,
		},
		"a headless service may have no ports": {
			service(func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.Ports = corev1.ClusterIPNone, nil }), []*corev1.Pod{pod(0, true)}, []string{"10.244.0.1 "}, true,
		},
		"no pods, no subsets": {service(nil), nil, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := desired(tc.service, tc.pods)
			if diff := cmp.Diff(tc.want, text(got.Subsets)); diff != "" {
				t.Fatal(diff)
			}
			want := map[string]string{"tier": "front", ManagedByLabel: Component}
			if tc.headless {
				want[corev1.IsHeadlessService] = ""
			}
			if diff := cmp.Diff(want, got.Labels); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestTooManyAddressesAreTruncated(t *testing.T) {
	t.Parallel()
	var pods []*corev1.Pod
	for i := range 1200 {
		pods = append(pods, pod(i, i < 900))
	}
	got := desired(service(nil), pods)
	if len(got.Subsets) != 1 || len(got.Subsets[0].Addresses) != 900 || len(got.Subsets[0].NotReadyAddresses) != 100 {
		t.Fatalf("%d ready and %d unready addresses", len(got.Subsets[0].Addresses), len(got.Subsets[0].NotReadyAddresses))
	}
	if got.Annotations[corev1.EndpointsOverCapacity] != "truncated" {
		t.Error("the annotation is missing")
	}
	for i := range pods {
		pods[i] = pod(i, true)
	}
	got = desired(service(nil), pods)
	if len(got.Subsets[0].Addresses) != 1000 || len(got.Subsets[0].NotReadyAddresses) != 0 {
		t.Fatalf("%d ready addresses, want 1000", len(got.Subsets[0].Addresses))
	}
}

func TestOrderMakesNoDifference(t *testing.T) {
	t.Parallel()
	a, b := desired(service(nil), []*corev1.Pod{pod(0, true), pod(1, true)}), desired(service(nil), []*corev1.Pod{pod(1, true), pod(0, true)})
	if !same(a, b) {
		t.Error("the same pods in another order are taken for a change")
	}
	if same(a, desired(service(nil), []*corev1.Pod{pod(0, true)})) {
		t.Error("a pod less is not taken for a change")
	}
}
