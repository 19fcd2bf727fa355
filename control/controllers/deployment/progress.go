package deployment

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// Reasons of the Progressing condition that are asked for again.
const (
	reasonAvailable = "NewReplicaSetAvailable"
	reasonTimedOut  = "ProgressDeadlineExceeded"
	reasonPaused    = "DeploymentPaused"
)

// notePaused tells in the Progressing condition that the Deployment was paused or
// resumed, so that the time it was paused does not count against its deadline.
func (r *rollout) notePaused() {
	current := condition(&r.d.Status, appsv1.DeploymentProgressing)
	if !hasDeadline(r.d) || (current != nil && current.Reason == reasonTimedOut) {
		return
	}
	paused := current != nil && current.Reason == reasonPaused
	switch {
	case r.d.Spec.Paused && !paused:
		setCondition(&r.d.Status, r.condition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonPaused, "Deployment is paused"))
	case !r.d.Spec.Paused && paused:
		setCondition(&r.d.Status, r.condition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, "DeploymentResumed", "Deployment is resumed"))
	}
}

// tellProgress writes the status in the middle of a rollout, if the step before
// it went well.
func (r *rollout) tellProgress(ctx context.Context, failed error) error {
	if failed != nil {
		return failed
	}
	status := newStatus(r.d, r.newSet, r.all(), r.now())
	judgeProgress(r.d, r.newSet, &status, r.now())
	if failure := replicaFailure(r.newSet, r.all()); failure != nil {
		setCondition(&status, *failure)
	} else {
		removeCondition(&status, appsv1.DeploymentReplicaFailure)
	}
	if equality.Semantic.DeepEqual(r.observed.Status, status) {
		r.watchDeadline(&status)
	}
	r.d.Status = status
	return r.writeStatus(ctx)
}

// judgeProgress sets the Progressing condition of the new status: finished, under
// way, or stuck for too long.
func judgeProgress(d *appsv1.Deployment, newSet *appsv1.ReplicaSet, status *appsv1.DeploymentStatus, now time.Time) {
	if !hasDeadline(d) {
		removeCondition(status, appsv1.DeploymentProgressing)
		return
	}
	current := condition(&d.Status, appsv1.DeploymentProgressing)
	if status.Replicas == status.UpdatedReplicas && current != nil && current.Reason == reasonAvailable {
		// No rollout is under way; that was told before.
		return
	}
	subject := fmt.Sprintf("Deployment %q", d.Name)
	if newSet != nil {
		subject = fmt.Sprintf("ReplicaSet %q", newSet.Name)
	}
	told := appsv1.DeploymentCondition{
		Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue,
		LastUpdateTime: metav1.Time{Time: now}, LastTransitionTime: metav1.Time{Time: now},
	}
	switch {
	case complete(d, status):
		told.Reason, told.Message = reasonAvailable, subject+" has successfully progressed."
	case progressing(&d.Status, status):
		told.Reason, told.Message = "ReplicaSetUpdated", subject+" is progressing."
		if current != nil {
			// Taken out first so that the time of this progress is noted even when
			// the reason stays.
			if current.Status == corev1.ConditionTrue {
				told.LastTransitionTime = current.LastTransitionTime
			}
			removeCondition(status, appsv1.DeploymentProgressing)
		}
	case timedOut(d, status, now):
		told.Status, told.Reason, told.Message = corev1.ConditionFalse, reasonTimedOut, subject+" has timed out progressing."
	default:
		return
	}
	setCondition(status, told)
}

// progressing tells whether there are more new, fewer old, more ready or more
// available replicas than before.
func progressing(old, status *appsv1.DeploymentStatus) bool {
	return status.UpdatedReplicas > old.UpdatedReplicas ||
		status.Replicas-status.UpdatedReplicas < old.Replicas-old.UpdatedReplicas ||
		status.ReadyReplicas > old.ReadyReplicas ||
		status.AvailableReplicas > old.AvailableReplicas
}

// timedOut tells whether the last progress is longer ago than the deadline.
func timedOut(d *appsv1.Deployment, status *appsv1.DeploymentStatus, now time.Time) bool {
	current := condition(status, appsv1.DeploymentProgressing)
	switch {
	case current == nil || current.Reason == reasonAvailable:
		// Nothing to measure from; or the informer has not shown the new rollout yet.
		return false
	case current.Reason == reasonTimedOut:
		return true
	}
	return current.LastUpdateTime.Add(time.Duration(*d.Spec.ProgressDeadlineSeconds) * time.Second).Before(now)
}

// watchDeadline has the Deployment looked at again when its deadline has passed:
// a rollout that is stuck causes no events.
func (r *rollout) watchDeadline(status *appsv1.DeploymentStatus) {
	current := condition(status, appsv1.DeploymentProgressing)
	if !hasDeadline(r.d) || current == nil || complete(r.d, status) || current.Reason == reasonTimedOut {
		return
	}
	left := current.LastUpdateTime.Add(time.Duration(*r.d.Spec.ProgressDeadlineSeconds) * time.Second).Sub(r.now())
	// A second more, because the API's times have no fractions.
	r.queue.AddAfter(reconcile.KeyOf(r.d), max(left, 0)+time.Second)
}

// replicaFailure returns the failure to create or delete pods that a set reports,
// preferably the new one.
func replicaFailure(newSet *appsv1.ReplicaSet, all []*appsv1.ReplicaSet) *appsv1.DeploymentCondition {
	if newSet != nil {
		all = append([]*appsv1.ReplicaSet{newSet}, all...)
	}
	for _, set := range all {
		for _, c := range set.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				return &appsv1.DeploymentCondition{
					Type: appsv1.DeploymentReplicaFailure, Status: c.Status, Reason: c.Reason, Message: c.Message,
					LastUpdateTime: c.LastTransitionTime, LastTransitionTime: c.LastTransitionTime,
				}
			}
		}
	}
	return nil
}
