package namespace

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/skiff-run/skiff/control/controllers/internal/fakeapi"
	"github.com/skiff-run/skiff/internal/testenv"
)

func TestConditions(t *testing.T) {
	t.Parallel()
	configMaps := corev1.SchemeGroupVersion.WithResource("configmaps")
	early, late := time.Unix(1, 0), time.Unix(9, 0)
	left := &findings{remaining: map[schema.GroupVersionResource]int{configMaps: 2}, finalizers: map[string]int{"example.com/keep": 1}}
	first := conditions(nil, left, early)
	text := func(all []corev1.NamespaceCondition, conditionType corev1.NamespaceConditionType) string {
		for _, c := range all {
			if c.Type == conditionType {
				return string(c.Status) + " " + c.Reason + ": " + c.Message
			}
		}
		return ""
	}
	for conditionType, want := range map[corev1.NamespaceConditionType]string{
		corev1.NamespaceContentRemaining:         "True SomeResourcesRemain: Some resources are remaining: configmaps. has 2 resource instances",
		corev1.NamespaceFinalizersRemaining:      "True SomeFinalizersRemain: Some content in the namespace has finalizers remaining: example.com/keep in 1 resource instances",
		corev1.NamespaceDeletionContentFailure:   "False ContentDeleted: All content successfully deleted, may be waiting on finalization",
		corev1.NamespaceDeletionDiscoveryFailure: "False ResourcesDiscovered: All resources successfully discovered",
	} {
		if got := text(first, conditionType); got != want {
			t.Errorf("%s:\n got %s\nwant %s", conditionType, got, want)
		}
	}
	second := conditions(first, &findings{contents: []error{errors.New("b"), errors.New("a")}}, late)
	if got, want := text(second, corev1.NamespaceDeletionContentFailure), "True ContentDeletionFailed: Failed to delete all resource types, 2 remaining: a, b"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if second[0].LastTransitionTime.Unix() != 1 || second[2].LastTransitionTime.Unix() != 9 {
		t.Error("times of transition are wrong")
	}
}

// TestPodsGoBeforeTheRest lets a namespace with a pod and a ConfigMap go and looks
// at the order in which its contents are deleted.
func TestPodsGoBeforeTheRest(t *testing.T) {
	t.Parallel()
	client := fakeapi.New()
	verbs := metav1.Verbs{"list", "delete", "deletecollection"}
	client.Resources = []*metav1.APIResourceList{{GroupVersion: "v1", APIResources: []metav1.APIResource{
		{Name: "configmaps", Kind: "ConfigMap", Namespaced: true, Verbs: verbs}, {Name: "pods", Kind: "Pod", Namespaced: true, Verbs: verbs},
		{Name: "nodes", Kind: "Node", Verbs: verbs}, {Name: "bindings", Kind: "Binding", Namespaced: true, Verbs: metav1.Verbs{"create"}},
	}}}
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	partial := func(kind, name string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: kind}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		}
	}
	contents := metadatafake.NewSimpleMetadataClient(scheme, partial("Pod", "web"), partial("ConfigMap", "settings"))
	var mu sync.Mutex
	var order []string
	contents.PrependReactor("delete-collection", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		resource := action.GetResource()
		mu.Lock()
		order = append(order, resource.Resource)
		mu.Unlock()
		name := map[string]string{"pods": "web", "configmaps": "settings"}[resource.Resource]
		return true, nil, contents.Tracker().Delete(resource, "shop", name)
	})
	factory := informers.NewSharedInformerFactory(client, 0)
	c := New(client, contents, factory, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	client.Start(ctx, factory)
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.Run(ctx); err != nil {
			t.Errorf("namespace controller: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait(); factory.Shutdown() })
	long := metav1.NewTime(time.Now().Add(-time.Minute))
	ns := &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: "shop", DeletionTimestamp: &long},
		Spec:       corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes, "example.com/other"}},
	}
	if _, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 20*time.Second, func() bool {
		return slices.ContainsFunc(client.Actions(), func(action clienttesting.Action) bool {
			create, ok := action.(clienttesting.CreateAction)
			if !ok || action.GetSubresource() != "finalize" {
				return false
			}
			rest := create.GetObject().(*corev1.Namespace).Spec.Finalizers
			return len(rest) == 1 && rest[0] == "example.com/other"
		})
	}, "the namespace was not finalized")
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(order, " "); got != "pods configmaps" {
		t.Errorf("deleted %q, want pods and then configmaps", got)
	}
}
