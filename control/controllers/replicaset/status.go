package replicaset

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/skiff-run/skiff/control/controllers/podstate"
)

// newStatus returns the status that describes the set's pods and the failure, if
// any, of the last attempt to change their number.
func newStatus(set *appsv1.ReplicaSet, active, terminating []*corev1.Pod, failure error, now time.Time) appsv1.ReplicaSetStatus {
	status := *set.Status.DeepCopy()
	status.Replicas, status.FullyLabeledReplicas, status.ReadyReplicas, status.AvailableReplicas = int32(len(active)), 0, 0, 0
	template := labels.SelectorFromSet(set.Spec.Template.Labels)
	for _, pod := range active {
		if template.Matches(labels.Set(pod.Labels)) {
			status.FullyLabeledReplicas++
		}
		if podstate.Ready(pod) {
			status.ReadyReplicas++
		}
		if podstate.Available(pod, set.Spec.MinReadySeconds, now) {
			status.AvailableReplicas++
		}
	}
	going := int32(len(terminating))
	status.TerminatingReplicas = &going
	status.ObservedGeneration = set.Generation

	failed := slices.IndexFunc(status.Conditions, func(c appsv1.ReplicaSetCondition) bool {
		return c.Type == appsv1.ReplicaSetReplicaFailure
	})
	switch {
	case failure != nil && failed < 0:
		condition := appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Message: failure.Error(),
			LastTransitionTime: metav1.Time{Time: now},
		}
		if len(active) < int(*set.Spec.Replicas) {
			condition.Reason = "FailedCreate"
		} else {
			condition.Reason = "FailedDelete"
		}
		status.Conditions = append(status.Conditions, condition)
	case failure == nil && failed >= 0:
		status.Conditions = slices.Delete(status.Conditions, failed, failed+1)
		if len(status.Conditions) == 0 {
			status.Conditions = nil
		}
	}
	return status
}

// writeStatus writes the status unless it is there already, and returns the set
// as it is then.
func (c *Controller) writeStatus(ctx context.Context, set *appsv1.ReplicaSet, status appsv1.ReplicaSetStatus) (*appsv1.ReplicaSet, error) {
	if equality.Semantic.DeepEqual(set.Status, status) {
		return set, nil
	}
	changed := set.DeepCopy()
	for first := true; ; first = false {
		changed.Status = status
		updated, err := c.client.AppsV1().ReplicaSets(set.Namespace).UpdateStatus(ctx, changed, metav1.UpdateOptions{})
		if err == nil {
			return updated, nil
		}
		if apierrors.IsNotFound(err) {
			// Deleted in between; the informer will tell.
			return set, nil
		}
		if !first {
			return nil, fmt.Errorf("update status: %w", err)
		}
		// Once more on what is there now. The status still tells which generation
		// it is about.
		if changed, err = c.client.AppsV1().ReplicaSets(set.Namespace).Get(ctx, set.Name, metav1.GetOptions{}); err != nil {
			return nil, fmt.Errorf("read before updating status: %w", err)
		}
		if changed.UID != set.UID {
			return changed, nil
		}
	}
}
