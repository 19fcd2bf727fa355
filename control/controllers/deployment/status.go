package deployment

import (
	"math"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// newStatus returns the status that follows from the sets' status, with the
// conditions the Deployment has and its availability.
func newStatus(d *appsv1.Deployment, newSet *appsv1.ReplicaSet, all []*appsv1.ReplicaSet, now time.Time) appsv1.DeploymentStatus {
	availableReplicas := sum(all, available)
	status := appsv1.DeploymentStatus{
		ObservedGeneration:  d.Generation,
		Replicas:            sum(all, existing),
		ReadyReplicas:       sum(all, ready),
		AvailableReplicas:   availableReplicas,
		UnavailableReplicas: max(sum(all, wanted)-availableReplicas, 0),
		TerminatingReplicas: terminating(all),
		CollisionCount:      d.Status.CollisionCount,
		Conditions:          slices.Clone(d.Status.Conditions),
	}
	if newSet != nil {
		status.UpdatedReplicas = existing(newSet)
	}
	availability := appsv1.DeploymentCondition{
		Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue, Reason: "MinimumReplicasAvailable",
		Message:        "Deployment has minimum availability.",
		LastUpdateTime: metav1.Time{Time: now}, LastTransitionTime: metav1.Time{Time: now},
	}
	if availableReplicas < *d.Spec.Replicas-maxUnavailable(d) {
		availability.Status, availability.Reason = corev1.ConditionFalse, "MinimumReplicasUnavailable"
		availability.Message = "Deployment does not have minimum availability."
	}
	setCondition(&status, availability)
	return status
}

// terminating adds up the sets' terminating replicas; nil when a set that has been
// looked at does not tell.
func terminating(all []*appsv1.ReplicaSet) *int32 {
	total := int32(0)
	for _, set := range all {
		switch {
		case set.Status.TerminatingReplicas != nil:
			total += *set.Status.TerminatingReplicas
		case set.Status.ObservedGeneration != 0:
			return nil
		}
	}
	return &total
}

// complete tells whether a Deployment with this status has only new replicas, all
// available.
func complete(d *appsv1.Deployment, status *appsv1.DeploymentStatus) bool {
	desired := *d.Spec.Replicas
	return status.UpdatedReplicas == desired && status.Replicas == desired && status.AvailableReplicas == desired &&
		status.ObservedGeneration >= d.Generation
}

// condition returns the condition of a type, or nil.
func condition(status *appsv1.DeploymentStatus, conditionType appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range status.Conditions {
		if status.Conditions[i].Type == conditionType {
			return &status.Conditions[i]
		}
	}
	return nil
}

// setCondition puts a condition in, unless one of its type says the same for the
// same reason. The time of transition only changes with the status.
func setCondition(status *appsv1.DeploymentStatus, c appsv1.DeploymentCondition) {
	old := condition(status, c.Type)
	if old != nil && old.Status == c.Status {
		if old.Reason == c.Reason {
			return
		}
		c.LastTransitionTime = old.LastTransitionTime
	}
	removeCondition(status, c.Type)
	status.Conditions = append(status.Conditions, c)
}

// removeCondition takes the condition of a type out.
func removeCondition(status *appsv1.DeploymentStatus, conditionType appsv1.DeploymentConditionType) {
	var rest []appsv1.DeploymentCondition
	for _, c := range status.Conditions {
		if c.Type != conditionType {
			rest = append(rest, c)
		}
	}
	status.Conditions = rest
}

// condition makes a condition as of now.
func (r *rollout) condition(conditionType appsv1.DeploymentConditionType, is corev1.ConditionStatus, reason, message string) appsv1.DeploymentCondition {
	now := metav1.Time{Time: r.now()}
	return appsv1.DeploymentCondition{
		Type: conditionType, Status: is, Reason: reason, Message: message, LastUpdateTime: now, LastTransitionTime: now,
	}
}

// hasDeadline tells whether lack of progress is to be reported.
func hasDeadline(d *appsv1.Deployment) bool {
	return d.Spec.ProgressDeadlineSeconds != nil && *d.Spec.ProgressDeadlineSeconds != math.MaxInt32
}

func hasHistoryLimit(d *appsv1.Deployment) bool {
	return d.Spec.RevisionHistoryLimit != nil && *d.Spec.RevisionHistoryLimit != math.MaxInt32
}
