package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"
)

// writer puts decisions into the API, with the events that tell people.
type writer struct {
	client   kubernetes.Interface
	recorder events.EventRecorder
	logger   *slog.Logger
}

// bind gives the pod its node.
func (w *writer) bind(ctx context.Context, pod *corev1.Pod, node string) error {
	err := w.client.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
	if apierrors.IsNotFound(err) {
		// Deleted while it was decided: the informer will say so.
		return nil
	}
	if err != nil {
		return fmt.Errorf("bind pod %s to node %s: %w", name(pod), node, err)
	}
	w.recorder.Eventf(pod, nil, corev1.EventTypeNormal, "Scheduled", "Binding", "Successfully assigned %v to %v", name(pod), node)
	return nil
}

// refuse records that the pod fits nowhere. A status that says so already is
// not written again; the event is, and the API counts it up.
func (w *writer) refuse(ctx context.Context, pod *corev1.Pod, message, nominated string) error {
	w.recorder.Eventf(pod, nil, corev1.EventTypeWarning, "FailedScheduling", "Scheduling", "%v", message)
	condition := corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
		Message: message, ObservedGeneration: pod.Generation, LastTransitionTime: metav1.Now(),
	}
	for _, current := range pod.Status.Conditions {
		if current.Type != condition.Type {
			continue
		}
		if current.Status == condition.Status {
			condition.LastTransitionTime = current.LastTransitionTime
			if current.Reason == condition.Reason && current.Message == message && pod.Status.NominatedNodeName == nominated {
				return nil
			}
		}
	}
	status := map[string]any{"conditions": []corev1.PodCondition{condition}}
	if nominated != pod.Status.NominatedNodeName {
		status["nominatedNodeName"] = nominated
	}
	return w.patchStatus(ctx, pod, status)
}

// evict removes a pod to make room for another.
func (w *writer) evict(ctx context.Context, victim, preemptor *corev1.Pod, node string) error {
	if victim.DeletionTimestamp != nil {
		return nil
	}
	err := w.patchStatus(ctx, victim, map[string]any{"conditions": []corev1.PodCondition{{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler,
		Message:            fmt.Sprintf("%s: preempting to accommodate a higher priority pod", preemptor.Spec.SchedulerName),
		ObservedGeneration: victim.Generation, LastTransitionTime: metav1.Now(),
	}}})
	if err == nil {
		err = w.client.CoreV1().Pods(victim.Namespace).Delete(ctx, victim.Name, *metav1.NewPreconditionDeleteOptions(string(victim.UID)))
	}
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("preempt pod %s: %w", name(victim), err)
	}
	w.logger.Info("preempted", "victim", name(victim), "pod", name(preemptor), "node", node)
	w.recorder.Eventf(victim, preemptor, corev1.EventTypeNormal, "Preempted", "Preempting", "Preempted by pod %v on node %v", preemptor.UID, node)
	return nil
}

// patchStatus merges into the status of this very pod, not of a later one of the same name.
func (w *writer) patchStatus(ctx context.Context, pod *corev1.Pod, status map[string]any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		return fmt.Errorf("encode status of pod %s: %w", name(pod), err)
	}
	_, err = w.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("patch status of pod %s: %w", name(pod), err)
	}
	return nil
}
