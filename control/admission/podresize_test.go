package admission

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

func TestWhatANodeCanNeverGrantIsRefused(t *testing.T) {
	t.Parallel()
	nodes := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	for name, system := range map[string]string{"n1": "linux", "w1": "windows"} {
		if err := nodes.Add(&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelOSStable: system}},
			Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("1Gi"),
			}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	plugin := &podResize{on(admission.Update), corelisters.NewNodeLister(nodes), func() bool { return true }}
	pod := func(node, cpu string, generation int64) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", Generation: generation}, Spec: corev1.PodSpec{
			NodeName:   node,
			Containers: []corev1.Container{{Name: "app", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}}},
		}}
	}
	for name, c := range map[string]struct {
		pod         *corev1.Pod
		subresource string
		want, cause string
	}{
		"what fits may be asked for":         {pod("n1", "2", 2), "resize", "", ""},
		"what does not fit":                  {pod("n1", "3", 2), "resize", "node didn't have enough allocatable resources: cpu, requested: 3000, allocatable: 2000", "NodeCapacity"},
		"an update that changes nothing":     {pod("n1", "3", 1), "resize", "", ""},
		"other subresources":                 {pod("n1", "3", 2), "status", "", ""},
		"a pod without a node":               {pod("", "3", 2), "resize", "", ""},
		"a node of another operating system": {pod("w1", "1", 2), "resize", `pod resize is only supported on linux nodes, node "w1" is "windows"`, "UnsupportedPlatform"},
		"a node that is gone":                {pod("n9", "1", 2), "resize", `node "n9" not found`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := admission.NewAttributesRecord(c.pod, pod("n1", "1", 1), corev1.SchemeGroupVersion.WithKind("Pod"), "default", "web",
				corev1.SchemeGroupVersion.WithResource("pods"), c.subresource, admission.Update, nil, false, nil)
			err := plugin.Validate(context.Background(), a, nil)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !apierrors.IsForbidden(err) || !strings.HasSuffix(err.Error(), c.want) {
				t.Fatalf("error is %v, want %s", err, c.want)
			}
			causes := err.(*apierrors.StatusError).ErrStatus.Details.Causes
			if c.cause != "" && (len(causes) == 0 || string(causes[len(causes)-1].Type) != c.cause) {
				t.Errorf("causes are %v, want %s", causes, c.cause)
			}
		})
	}
}
