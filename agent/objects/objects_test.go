package objects

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/skiff-run/skiff/internal/testenv"
)

func TestOnlyReferencedObjectsAreFollowedWhileTheyAreReferenced(t *testing.T) {
	t.Parallel()
	object := func(value string) *v1.ConfigMap {
		return &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "ns"}, Data: map[string]string{"k": value}}
	}
	client := fake.NewClientset(object("1"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var told atomic.Int32
	s := New(ctx, client, func(uid types.UID) {
		if uid == "u" {
			told.Add(1)
		}
	})
	if _, err := s.ConfigMap("ns", "c"); err == nil {
		t.Error("an object nobody refers to was read")
	}
	pod := &v1.Pod{Spec: v1.PodSpec{Volumes: []v1.Volume{
		{VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "c"}}}},
		{VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "missing"}}},
	}}}
	pod.UID, pod.Namespace = "u", "ns"
	s.Register(pod)
	if c, err := s.ConfigMap("ns", "c"); err != nil || c.Data["k"] != "1" {
		t.Fatalf("%v, %v", c, err)
	}
	if _, err := s.Secret("ns", "missing"); !apierrors.IsNotFound(err) || err.Error() != `secret "missing" not found` {
		t.Errorf("error %v", err)
	}
	before := told.Load()
	// The watch may begin after the list; an update that came between is repeated until it is seen.
	testenv.Eventually(t, 5*time.Second, func() bool {
		if _, err := client.CoreV1().ConfigMaps("ns").Update(ctx, object("2"), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		c, err := s.ConfigMap("ns", "c")
		return err == nil && c.Data["k"] == "2" && told.Load() > before
	}, "the change arrived and was told")
	s.Unregister("u")
	if _, err := s.ConfigMap("ns", "c"); err == nil {
		t.Error("still followed though nobody refers to it")
	}
}
