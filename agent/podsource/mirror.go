package podsource

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// IsStatic reports whether a pod comes from a file.
func IsStatic(pod *v1.Pod) bool { return pod.Annotations[SourceAnnotation] == "file" }

// EnsureMirror makes the API's image of a static pod, and replaces one that
// mirrors an older manifest. node owns the mirror.
func (a *API) EnsureMirror(ctx context.Context, static *v1.Pod, node types.UID) error {
	if existing, ok := a.Mirror(static.UID); ok {
		if existing.DeletionTimestamp == nil {
			return nil
		}
		// Somebody deleted the mirror; the pod itself stays, and gets a new one.
		return a.deleteMirror(ctx, existing)
	}
	mirror := static.DeepCopy()
	mirror.UID, mirror.ResourceVersion, mirror.Status = "", "", v1.PodStatus{}
	mirror.Annotations[MirrorAnnotation] = string(static.UID)
	yes := true
	mirror.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: a.node, UID: node, Controller: &yes}}
	_, err := a.client.CoreV1().Pods(mirror.Namespace).Create(ctx, mirror, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return wrapMirror("create", static, err)
	}
	existing, err := a.client.CoreV1().Pods(mirror.Namespace).Get(ctx, mirror.Name, metav1.GetOptions{})
	if err != nil || existing.Annotations[MirrorAnnotation] == string(static.UID) {
		return wrapMirror("get", static, err)
	}
	return a.deleteMirror(ctx, existing)
}

// PruneMirrors removes mirrors whose static pod is no more.
func (a *API) PruneMirrors(ctx context.Context, alive func(types.UID) bool) error {
	a.mu.Lock()
	var stale []*v1.Pod
	for uid, mirror := range a.mirrors {
		if !alive(uid) {
			stale = append(stale, mirror)
		}
	}
	a.mu.Unlock()
	for _, mirror := range stale {
		if err := a.deleteMirror(ctx, mirror); err != nil {
			return err
		}
	}
	return nil
}

func (a *API) deleteMirror(ctx context.Context, mirror *v1.Pod) error {
	zero := int64(0)
	err := a.client.CoreV1().Pods(mirror.Namespace).Delete(ctx, mirror.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero, Preconditions: metav1.NewUIDPreconditions(string(mirror.UID)),
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return wrapMirror("delete", mirror, err)
}

func wrapMirror(verb string, pod *v1.Pod, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s mirror pod %s/%s: %w", verb, pod.Namespace, pod.Name, err)
}

// systemCritical is the lowest priority that users cannot give.
const systemCritical = 2000000000

// IsCritical reports whether the node or the cluster cannot do without a pod.
func IsCritical(pod *v1.Pod) bool {
	_, mirror := pod.Annotations[MirrorAnnotation]
	return IsStatic(pod) || mirror || (pod.Spec.Priority != nil && *pod.Spec.Priority >= systemCritical)
}
