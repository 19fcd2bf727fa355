package garbagecollector

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
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

var (
	setKind   = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")
	anyVerb   = metav1.Verbs{"get", "list", "watch", "delete", "patch"}
	resources = []*metav1.APIResourceList{
		{GroupVersion: "v1", APIResources: []metav1.APIResource{
			{Name: "pods", Kind: "Pod", Namespaced: true, Verbs: anyVerb}, {Name: "pods/status", Kind: "Pod", Namespaced: true, Verbs: anyVerb},
			{Name: "events", Kind: "Event", Namespaced: true, Verbs: anyVerb},
		}},
		{GroupVersion: "apps/v1", APIResources: []metav1.APIResource{{Name: "replicasets", Kind: "ReplicaSet", Namespaced: true, Verbs: anyVerb}}},
	}
)

// shop is an API with pods and replica sets and a garbage collector whose writes
// are recorded.
type shop struct {
	*testing.T
	client   *fakeapi.Client
	metadata *metadatafake.FakeMetadataClient
}

func open(t *testing.T) *shop {
	t.Helper()
	client := fakeapi.New()
	client.Resources = resources
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	s := &shop{T: t, client: client, metadata: metadatafake.NewSimpleMetadataClient(scheme)}
	// The metadata client's own store stays empty, so every owner the informers do
	// not have is confirmed to be gone; writes are taken as they come.
	for _, verb := range []string{"delete", "patch"} {
		s.metadata.PrependReactor(verb, "*", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, &metav1.PartialObjectMetadata{}, nil
		})
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	for _, resource := range []string{"pods", "replicasets"} {
		gv := schema.GroupVersion{Version: "v1"}
		if resource == "replicasets" {
			gv.Group = "apps"
		}
		shared, err := factory.ForResource(gv.WithResource(resource))
		if err != nil {
			t.Fatal(err)
		}
		shared.Informer()
	}
	ctx, cancel := context.WithCancel(context.Background())
	client.Start(ctx, factory)
	c := New(client, s.metadata, factory, time.Hour, slog.New(slog.DiscardHandler))
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.Run(ctx); err != nil {
			t.Errorf("garbage collector: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait(); factory.Shutdown() })
	return s
}

func (s *shop) set(name string, edit func(*appsv1.ReplicaSet)) *appsv1.ReplicaSet {
	s.Helper()
	set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
	if edit != nil {
		edit(set)
	}
	created, err := s.client.AppsV1().ReplicaSets("shop").Create(s.Context(), set, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return created
}

func (s *shop) pod(name string, owners ...metav1.OwnerReference) {
	s.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, OwnerReferences: owners}}
	if _, err := s.client.CoreV1().Pods("shop").Create(s.Context(), pod, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
}

// await waits for a write of the garbage collector.
func (s *shop) await(verb, resource, name string) clienttesting.Action {
	s.Helper()
	var found clienttesting.Action
	testenv.Eventually(s, 10*time.Second, func() bool {
		for _, action := range s.metadata.Actions() {
			if action.GetVerb() != verb || action.GetResource().Resource != resource {
				continue
			}
			if named, ok := action.(interface{ GetName() string }); ok && named.GetName() == name {
				found = action
				return true
			}
		}
		return false
	}, "no %s of %s %s", verb, resource, name)
	return found
}

func (s *shop) untouched(name string) {
	s.Helper()
	if slices.ContainsFunc(s.metadata.Actions(), func(action clienttesting.Action) bool {
		named, ok := action.(interface{ GetName() string })
		return ok && named.GetName() == name && action.GetVerb() != "get"
	}) {
		s.Errorf("%s was written to", name)
	}
}

func ref(set *appsv1.ReplicaSet) metav1.OwnerReference { return *metav1.NewControllerRef(set, setKind) }

func TestDependentsGoWithTheirOwner(t *testing.T) {
	t.Parallel()
	s := open(t)
	owner, other := s.set("web", nil), s.set("db", nil)
	s.pod("web-1", ref(owner))
	s.pod("db-1", ref(other))
	s.pod("free")
	if err := s.client.AppsV1().ReplicaSets("shop").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	action := s.await("delete", "pods", "web-1").(clienttesting.DeleteAction)
	options := action.GetDeleteOptions()
	if options.Preconditions == nil || *options.Preconditions.UID == "" || *options.Preconditions.ResourceVersion == "" || *options.PropagationPolicy != metav1.DeletePropagationBackground {
		t.Errorf("deleted with %+v", options)
	}
	s.untouched("db-1")
	s.untouched("free")
}

func TestDependentOfAnOwnerThatNeverWasGoes(t *testing.T) {
	t.Parallel()
	s := open(t)
	living := s.set("web", nil)
	s.pod("lost", metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "of-a-former-one"})
	s.pod("odd", metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "Unknown", Name: "x", UID: "x"})
	s.pod("web-1", ref(living))
	s.await("delete", "pods", "lost")
	s.untouched("odd")
	s.untouched("web-1")
}

func TestOwnerThatOrphansLetsDependentsGoFirst(t *testing.T) {
	t.Parallel()
	s := open(t)
	now := metav1.Now()
	owner := s.set("web", nil)
	s.pod("web-1", ref(owner))
	owner.DeletionTimestamp, owner.Finalizers = &now, []string{metav1.FinalizerOrphanDependents}
	if _, err := s.client.AppsV1().ReplicaSets("shop").Update(t.Context(), owner, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	orphaned := s.await("patch", "pods", "web-1").(clienttesting.PatchAction)
	if want := `{"metadata":{"ownerReferences":[{"$patch":"delete","uid":"` + string(owner.UID) + `"}],"uid":`; string(orphaned.GetPatch()[:len(want)]) != want {
		t.Errorf("patch %s", orphaned.GetPatch())
	}
	s.await("patch", "replicasets", "web")
	if slices.ContainsFunc(s.metadata.Actions(), func(action clienttesting.Action) bool { return action.GetVerb() == "delete" }) {
		t.Error("something was deleted")
	}
}

func TestOwnerInTheForegroundWaitsForDependents(t *testing.T) {
	t.Parallel()
	s := open(t)
	now := metav1.Now()
	owner := s.set("web", nil)
	s.pod("web-1", ref(owner))
	owner.DeletionTimestamp, owner.Finalizers = &now, []string{metav1.FinalizerDeleteDependents}
	if _, err := s.client.AppsV1().ReplicaSets("shop").Update(t.Context(), owner, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.await("delete", "pods", "web-1")
	s.untouched("web")
	if err := s.client.CoreV1().Pods("shop").Delete(t.Context(), "web-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	patch := s.await("patch", "replicasets", "web").(clienttesting.PatchAction)
	if want := `{"metadata":{"finalizers":[],`; string(patch.GetPatch()[:len(want)]) != want {
		t.Errorf("patch %s", patch.GetPatch())
	}
}
