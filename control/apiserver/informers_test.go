package apiserver

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/skiff-run/skiff/internal/testenv"
)

// What the architecture calls "no second cache": the informers of two factories
// hold the same object in memory, through every kind of change, and nobody
// changes it.
func TestInformersShareTheServersObjects(t *testing.T) {
	t.Parallel()
	server := serve(t, t.TempDir(), nil)
	client, err := kubernetes.NewForConfig(server.admin)
	if err != nil {
		t.Fatal(err)
	}
	maps := client.CoreV1().ConfigMaps("default")
	first, second := server.InformerFactory(client), server.InformerFactory(client)
	one, other := first.Core().V1().ConfigMaps(), second.Core().V1().ConfigMaps()
	one.Informer()
	other.Informer()
	early, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "early"}, Data: map[string]string{"a": "1"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	first.StartWithContext(t.Context())
	second.StartWithContext(t.Context())
	same := func(name, version string) {
		t.Helper()
		testenv.Eventually(t, 10*time.Second, func() bool {
			a, _ := one.Lister().ConfigMaps("default").Get(name)
			b, _ := other.Lister().ConfigMaps("default").Get(name)
			return a != nil && a == b && a.ResourceVersion == version
		}, "informers hold the same %s at %s", name, version)
	}
	same("early", early.ResourceVersion)
	patched, err := maps.Patch(t.Context(), "early", types.ApplyPatchType, []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"early","labels":{"l":"1"}},"data":{"b":"2"}}`),
		metav1.PatchOptions{FieldManager: "test", Force: new(true)})
	if err != nil {
		t.Fatal(err)
	}
	same("early", patched.ResourceVersion)
	patched.Data["c"] = "3"
	updated, err := maps.Update(t.Context(), patched, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	same("early", updated.ResourceVersion)
	for i := range 50 {
		if _, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("late-", i)}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	last, err := maps.Get(t.Context(), "late-49", metav1.GetOptions{ResourceVersion: "0"})
	if err != nil {
		t.Fatal(err)
	}
	same("late-49", last.ResourceVersion)
	if err := maps.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 10*time.Second, func() bool {
		_, err := one.Lister().ConfigMaps("default").Get("early")
		return err != nil
	}, "the informer sees deletions")
}

// A client may watch and list what informers share, in every format, at once.
func TestSharedObjectsSurviveTheirReaders(t *testing.T) {
	t.Parallel()
	server := serve(t, t.TempDir(), nil)
	for _, contentType := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		config := *server.admin
		config.ContentType = contentType
		client, err := kubernetes.NewForConfig(&config)
		if err != nil {
			t.Fatal(err)
		}
		roles, err := client.RbacV1().ClusterRoles().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		events, err := client.RbacV1().ClusterRoles().Watch(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for range roles.Items {
			if event := <-events.ResultChan(); event.Type != "ADDED" {
				t.Fatalf("got %v", event)
			}
		}
		events.Stop()
		for _, accept := range []string{"application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "application/yaml"} {
			data, err := client.RbacV1().RESTClient().Get().Resource("clusterroles").SetHeader("Accept", accept).DoRaw(t.Context())
			if err != nil || !strings.Contains(string(data), "cluster-admin") {
				t.Fatalf("%s: %v %.200s", accept, err, data)
			}
		}
		if _, err := client.RbacV1().ClusterRoles().Update(t.Context(), roles.Items[0].DeepCopy(), metav1.UpdateOptions{DryRun: []string{"All"}}); err != nil {
			t.Fatal(err)
		}
	}
}
