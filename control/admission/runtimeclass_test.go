package admission

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func TestARuntimeClassShapesItsPods(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	class := &nodev1.RuntimeClass{
		ObjectMeta: metav1.ObjectMeta{Name: "sandboxed"}, Handler: "kata", Overhead: &nodev1.Overhead{PodFixed: corev1.ResourceList{"memory": resource.MustParse("64Mi")}},
		Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"kata": "yes"}, Tolerations: []corev1.Toleration{{Key: "kata", Operator: corev1.TolerationOpExists}}},
	}
	client := fake.NewClientset(class)
	factory := informers.NewSharedInformerFactory(client, 0)
	plugin := newRuntimeClass(Config{Client: client, Informers: factory})
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	name := func(s string) *string { return &s }
	for title, tc := range map[string]struct {
		spec    corev1.PodSpec
		want    corev1.PodSpec
		refusal string
	}{
		"a pod of the class": {
			spec: corev1.PodSpec{RuntimeClassName: name("sandboxed"), Tolerations: []corev1.Toleration{{Key: "kata", Operator: corev1.TolerationOpEqual, Value: "x"}}},
			want: corev1.PodSpec{
				RuntimeClassName: name("sandboxed"), Overhead: class.Overhead.PodFixed, NodeSelector: map[string]string{"kata": "yes"}, Tolerations: class.Scheduling.Tolerations,
			},
		},
		"a pod of none":               {spec: corev1.PodSpec{}, want: corev1.PodSpec{}},
		"a class that does not exist": {spec: corev1.PodSpec{RuntimeClassName: name("other")}, refusal: `pod rejected: RuntimeClass "other" not found`},
		"another overhead": {
			spec:    corev1.PodSpec{RuntimeClassName: name("sandboxed"), Overhead: corev1.ResourceList{"memory": resource.MustParse("1Mi")}},
			refusal: "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
		},
		"overhead without a class": {
			spec:    corev1.PodSpec{Overhead: corev1.ResourceList{"memory": resource.MustParse("1Mi")}},
			refusal: "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
		},
		"another node selector": {
			spec:    corev1.PodSpec{RuntimeClassName: name("sandboxed"), NodeSelector: map[string]string{"kata": "no"}},
			refusal: "conflict: runtimeClass.scheduling.nodeSelector[kata] = yes; pod.spec.nodeSelector[kata] = no",
		},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n"}, Spec: *tc.spec.DeepCopy()}
			a := admission.NewAttributesRecord(pod, nil, corev1.SchemeGroupVersion.WithKind("Pod"), "n", "p", corev1.SchemeGroupVersion.WithResource("pods"), "",
				admission.Create, &metav1.CreateOptions{}, false, nil)
			err := plugin.Admit(ctx, a, nil)
			if err == nil {
				err = plugin.Validate(ctx, a, nil)
			}
			if tc.refusal != "" {
				if err == nil || !strings.HasSuffix(err.Error(), tc.refusal) {
					t.Errorf("%v, want %s", err, tc.refusal)
				}
				return
			}
			if diff := cmp.Diff(tc.want, pod.Spec); err != nil || diff != "" {
				t.Errorf("%v, pod (-want +got):\n%s", err, diff)
			}
		})
	}
}
