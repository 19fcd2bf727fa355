package replicaset

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// burst is how many pods a ReplicaSet creates or deletes before it looks again.
const burst = 500

// scale creates the pods that are missing or deletes those that are too many.
func (c *Controller) scale(ctx context.Context, set *appsv1.ReplicaSet, active []*corev1.Pod) error {
	missing := int(*set.Spec.Replicas) - len(active)
	switch {
	case missing > 0:
		return c.create(ctx, set, min(missing, burst))
	case missing < 0:
		return c.shrink(ctx, set, active, min(-missing, burst))
	}
	return nil
}

func (c *Controller) create(ctx context.Context, set *appsv1.ReplicaSet, count int) error {
	key := reconcile.KeyOf(set)
	c.expected.expect(key, count)
	succeeded, err := slowStart(count, func() error {
		pod, err := c.client.CoreV1().Pods(set.Namespace).Create(ctx, podFor(set), metav1.CreateOptions{})
		switch {
		case err == nil:
			c.events.Eventf(set, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", pod.Name)
		case !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			c.events.Eventf(set, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		}
		return err
	})
	// The informer will never show what was not created.
	c.expected.created(key, count-succeeded)
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return err
}

// podFor returns a new pod after the set's template.
func podFor(set *appsv1.ReplicaSet) *corev1.Pod {
	template := set.Spec.Template.DeepCopy()
	prefix := set.Name + "-"
	if len(validation.NameIsDNSSubdomain(prefix, true)) > 0 {
		prefix = set.Name
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName:    prefix,
			Labels:          template.Labels,
			Annotations:     template.Annotations,
			Finalizers:      template.Finalizers,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(set, kind)},
		},
		Spec: template.Spec,
	}
}

// slowStart calls create count times, in parallel batches of 1, 2, 4 and so on,
// and stops after a batch with a failure: when a quota forbids every pod, few
// calls find out. It returns how many calls succeeded and one of the errors.
func slowStart(count int, create func() error) (succeeded int, err error) {
	for batch := 1; count > 0 && err == nil; batch *= 2 {
		size := min(batch, count)
		failures := make(chan error, size)
		var calls sync.WaitGroup
		for range size {
			calls.Go(func() {
				if err := create(); err != nil {
					failures <- err
				}
			})
		}
		calls.Wait()
		count -= size
		succeeded += size - len(failures)
		select {
		case err = <-failures:
		default:
		}
	}
	return succeeded, err
}

func (c *Controller) shrink(ctx context.Context, set *appsv1.ReplicaSet, active []*corev1.Pod, count int) error {
	related, err := c.relatedPods(set)
	if err != nil {
		return err
	}
	doomed := victims(active, related, count, c.now())
	uids := make([]types.UID, len(doomed))
	for i, pod := range doomed {
		uids[i] = pod.UID
	}
	key := reconcile.KeyOf(set)
	c.expected.expect(key, 0, uids...)
	failures := make(chan error, len(doomed))
	var calls sync.WaitGroup
	for _, pod := range doomed {
		calls.Go(func() {
			if err := c.remove(ctx, set, pod); err != nil {
				c.expected.deleted(key, pod.UID)
				failures <- err
			}
		})
	}
	calls.Wait()
	close(failures)
	for err := range failures {
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// remove deletes a pod of the set.
func (c *Controller) remove(ctx context.Context, set *appsv1.ReplicaSet, pod *corev1.Pod) error {
	err := c.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{})
	switch {
	case err == nil:
		c.events.Eventf(set, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", pod.Name)
		return nil
	case apierrors.IsNotFound(err):
		return err
	}
	c.events.Eventf(set, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
	return fmt.Errorf("unable to delete pods: %w", err)
}

// relatedPods returns the pods selected by any ReplicaSet of the same owner, so
// that a rollout's old set gives up pods where the new one's already are.
func (c *Controller) relatedPods(set *appsv1.ReplicaSet) ([]*corev1.Pod, error) {
	owner := metav1.GetControllerOfNoCopy(set)
	if owner == nil {
		return nil, nil
	}
	sets, err := c.sets.ReplicaSets(set.Namespace).List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list replica sets: %w", err)
	}
	var failures []error
	seen := map[types.UID]*corev1.Pod{}
	for _, other := range sets {
		if controller := metav1.GetControllerOfNoCopy(other); controller == nil || controller.UID != owner.UID {
			continue
		}
		pods, err := c.selectedBy(other)
		failures = append(failures, err)
		for _, pod := range pods {
			seen[pod.UID] = pod
		}
	}
	return slices.Collect(maps.Values(seen)), errors.Join(failures...)
}

// selectedBy returns the pods of the set's namespace that its selector matches.
func (c *Controller) selectedBy(set *appsv1.ReplicaSet) ([]*corev1.Pod, error) {
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil {
		// An invalid selector matches nothing.
		return nil, nil
	}
	return corelisters.NewPodLister(c.pods).Pods(set.Namespace).List(selector)
}
