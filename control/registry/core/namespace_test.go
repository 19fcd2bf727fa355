package core

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

// TestANamespaceGoesWithItsLastFinalizerAndNotBefore deletes one and then does
// to it what the namespace controller does while things are left in it.
func TestANamespaceGoesWithItsLastFinalizerAndNotBefore(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ctx := request.WithNamespace(h.ctx, "")
	main := h.storages["namespaces"].(rest.StandardStorage)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	h.scheme.Default(ns)
	if _, err := main.Create(ctx, ns, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, gone, err := main.Delete(ctx, "shop", rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}); err != nil || gone {
		t.Fatalf("deletion: gone at once %v, error %v", gone, err)
	}
	update := func(path string, change func(*corev1.Namespace)) {
		t.Helper()
		current, err := main.Get(ctx, "shop", &metav1.GetOptions{})
		if err != nil {
			t.Fatalf("before an update of %s: %v", path, err)
		}
		changed := current.(*corev1.Namespace).DeepCopy()
		change(changed)
		_, _, err = h.storages[path].(rest.Updater).Update(ctx, "shop", rest.DefaultUpdatedObjectInfo(changed), rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
		if err != nil {
			t.Fatalf("update of %s: %v", path, err)
		}
	}
	update("namespaces/status", func(n *corev1.Namespace) {
		n.Status.Conditions = []corev1.NamespaceCondition{{Type: corev1.NamespaceContentRemaining, Status: corev1.ConditionTrue}}
	})
	update("namespaces", func(n *corev1.Namespace) { n.Labels["left"] = "pods" })
	update("namespaces/finalize", func(n *corev1.Namespace) { n.Spec.Finalizers = nil })
	if _, err := main.Get(ctx, "shop", &metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("after the last finalizer: %v, want that it is gone", err)
	}
}
