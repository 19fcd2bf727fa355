package deployment

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// syncNewSet brings the new set's annotations and the Deployment's revision up to
// date; if there is no new set and create says so, it makes one.
func (r *rollout) syncNewSet(ctx context.Context, create bool) error {
	next := highestRevision(r.oldSets) + 1
	if r.newSet == nil {
		if !create {
			return nil
		}
		return r.createSet(ctx, next)
	}
	set := r.newSet.DeepCopy()
	changed := annotate(r.d, set, next)
	if changed || set.Spec.MinReadySeconds != r.d.Spec.MinReadySeconds {
		set.Spec.MinReadySeconds = r.d.Spec.MinReadySeconds
		updated, err := r.client.AppsV1().ReplicaSets(set.Namespace).Update(ctx, set, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("update replica set %s: %w", set.Name, err)
		}
		r.newSet = updated
	}
	r.setRevision(r.newSet.Annotations[revisionAnnotation])
	if hasDeadline(r.d) && condition(&r.d.Status, appsv1.DeploymentProgressing) == nil {
		setCondition(&r.d.Status, r.condition(appsv1.DeploymentProgressing, corev1.ConditionTrue, "FoundNewReplicaSet",
			fmt.Sprintf("Found new replica set %q", r.newSet.Name)))
	}
	return nil
}

// createSet makes the ReplicaSet for the Deployment's template.
func (r *rollout) createSet(ctx context.Context, next int64) error {
	set := buildSet(r.d)
	*set.Spec.Replicas = newSetSize(r.d, append(r.all(), set), set)
	annotate(r.d, set, next)
	noteSize(r.d, set)
	created, err := r.client.AppsV1().ReplicaSets(set.Namespace).Create(ctx, set, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err):
		return r.resolveCollision(ctx, set, err)
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return err
	case err != nil:
		message := fmt.Sprintf("Failed to create new replica set %q: %v", set.Name, err)
		if hasDeadline(r.d) {
			setCondition(&r.d.Status, r.condition(appsv1.DeploymentProgressing, corev1.ConditionFalse, "ReplicaSetCreateError", message))
		}
		r.events.Event(r.observed, corev1.EventTypeWarning, "ReplicaSetCreateError", message)
		return fmt.Errorf("create replica set %s: %w", set.Name, err)
	}
	if size := *set.Spec.Replicas; size > 0 {
		r.events.Eventf(r.observed, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled up replica set %s from 0 to %d", created.Name, size)
	}
	r.newSet = created
	r.setRevision(strconv.FormatInt(next, 10))
	if hasDeadline(r.d) {
		setCondition(&r.d.Status, r.condition(appsv1.DeploymentProgressing, corev1.ConditionTrue, "NewReplicaSetCreated",
			fmt.Sprintf("Created new replica set %q", created.Name)))
	}
	return nil
}

// resolveCollision handles that a set of the new set's name is there already:
// either it is the new set and the informer was late, or two templates have the
// same hash and the Deployment's collision count has to make a difference.
func (r *rollout) resolveCollision(ctx context.Context, set *appsv1.ReplicaSet, cause error) error {
	there, err := r.client.AppsV1().ReplicaSets(set.Namespace).Get(ctx, set.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read replica set %s: %w", set.Name, err)
	}
	if controller := metav1.GetControllerOfNoCopy(there); controller != nil && controller.UID == r.d.UID && sameTemplate(&there.Spec.Template, &r.d.Spec.Template) {
		r.newSet = there
		r.setRevision(there.Annotations[revisionAnnotation])
		return nil
	}
	collisions := int32(1)
	if r.d.Status.CollisionCount != nil {
		collisions += *r.d.Status.CollisionCount
	}
	r.d.Status.CollisionCount = &collisions
	r.logger.Info("two pod templates have the same hash; the deployment's collision count was raised",
		"deployment", r.d.Namespace+"/"+r.d.Name, "replicaSet", set.Name, "collisionCount", collisions)
	return fmt.Errorf("create replica set %s: %w", set.Name, cause)
}

// scaleSet gives a set a size, and its notes of the Deployment's size with it. It
// tells whether the size changed.
func (r *rollout) scaleSet(ctx context.Context, set *appsv1.ReplicaSet, size int32, always bool) (bool, error) {
	old := wanted(set)
	if old == size && !always {
		return false, nil
	}
	changed := set.DeepCopy()
	*changed.Spec.Replicas = size
	if noted := noteSize(r.d, changed); !noted && old == size {
		return false, nil
	}
	if _, err := r.client.AppsV1().ReplicaSets(set.Namespace).Update(ctx, changed, metav1.UpdateOptions{}); err != nil {
		return false, fmt.Errorf("scale replica set %s: %w", set.Name, err)
	}
	switch {
	case old < size:
		r.events.Eventf(r.observed, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled up replica set %s from %d to %d", set.Name, old, size)
	case old > size:
		r.events.Eventf(r.observed, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled down replica set %s from %d to %d", set.Name, old, size)
	}
	return old != size, nil
}

// cleanUp deletes the oldest unused sets beyond the history limit.
func (r *rollout) cleanUp(ctx context.Context) error {
	if !hasHistoryLimit(r.d) {
		return nil
	}
	for _, set := range expired(r.oldSets, int(*r.d.Spec.RevisionHistoryLimit)) {
		err := r.client.AppsV1().ReplicaSets(set.Namespace).Delete(ctx, set.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete old replica set %s: %w", set.Name, err)
		}
	}
	return nil
}

// expired returns which of the old sets go when only limit of them are kept.
func expired(oldSets []*appsv1.ReplicaSet, limit int) []*appsv1.ReplicaSet {
	var living, doomed []*appsv1.ReplicaSet
	for _, set := range oldSets {
		if set.DeletionTimestamp == nil {
			living = append(living, set)
		}
	}
	slices.SortFunc(living, byRevision)
	for _, set := range living[:max(len(living)-limit, 0)] {
		// Whatever still has pods, or has not yet been looked at, stays.
		if existing(set) == 0 && wanted(set) == 0 && set.Generation <= set.Status.ObservedGeneration {
			doomed = append(doomed, set)
		}
	}
	return doomed
}

// setRevision notes the new set's revision as the Deployment's.
func (r *rollout) setRevision(revision string) {
	if r.d.Annotations == nil {
		r.d.Annotations = map[string]string{}
	}
	r.d.Annotations[revisionAnnotation] = revision
}

// writeStatus writes status and revision unless they are there already. The
// status subresource takes annotations as well, which is how the revision gets
// onto the Deployment.
func (r *rollout) writeStatus(ctx context.Context) error {
	same := equality.Semantic.DeepEqual(r.observed.Status, r.d.Status) &&
		r.observed.Annotations[revisionAnnotation] == r.d.Annotations[revisionAnnotation]
	if same {
		return nil
	}
	_, err := r.client.AppsV1().Deployments(r.d.Namespace).UpdateStatus(ctx, r.d, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update status: %w", err)
	}
	return nil
}

// tellFailure writes what a failed step has put into the status.
func (r *rollout) tellFailure(ctx context.Context, cause error) error {
	if apierrors.HasStatusCause(cause, corev1.NamespaceTerminatingCause) || apierrors.IsConflict(cause) {
		return nil
	}
	return r.writeStatus(ctx)
}
