// Package podstate answers the questions controllers ask about a pod: is it
// active, ready, available, who controls it, on which node is it. Its functions
// are pure; its indexes let a shared informer answer without walking all pods.
package podstate

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// Condition returns the pod's condition of the given type, or nil.
func Condition(pod *corev1.Pod, conditionType corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == conditionType {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// Ready tells whether the pod's Ready condition is true.
func Ready(pod *corev1.Pod) bool {
	condition := Condition(pod, corev1.PodReady)
	return condition != nil && condition.Status == corev1.ConditionTrue
}

// ReadySince returns when the pod became ready; zero when it is not.
func ReadySince(pod *corev1.Pod) time.Time {
	condition := Condition(pod, corev1.PodReady)
	if condition == nil || condition.Status != corev1.ConditionTrue {
		return time.Time{}
	}
	return condition.LastTransitionTime.Time
}

// Available tells whether the pod has been ready for at least minReadySeconds.
func Available(pod *corev1.Pod, minReadySeconds int32, now time.Time) bool {
	if !Ready(pod) {
		return false
	}
	if minReadySeconds == 0 {
		return true
	}
	since := ReadySince(pod)
	return !since.IsZero() && !since.Add(time.Duration(minReadySeconds)*time.Second).After(now)
}

// Finished tells whether the pod's containers have ended for good.
func Finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
}

// Active tells whether the pod counts as a running replica: neither finished nor
// being deleted.
func Active(pod *corev1.Pod) bool {
	return !Finished(pod) && pod.DeletionTimestamp == nil
}

// Terminating tells whether the pod is being deleted but may still be running.
func Terminating(pod *corev1.Pod) bool {
	return !Finished(pod) && pod.DeletionTimestamp != nil
}

const (
	byController = "skiff/controller"
	byNode       = "skiff/node"
)

// IndexByController makes informer, which has to be one of pods, able to answer
// ControlledBy and Orphans.
func IndexByController(informer cache.SharedIndexInformer) error {
	return index(informer, byController, func(pod *corev1.Pod) []string {
		if controller := metav1.GetControllerOfNoCopy(pod); controller != nil {
			return []string{string(controller.UID)}
		}
		return []string{orphanKey(pod.Namespace)}
	})
}

// IndexByNode makes informer, which has to be one of pods, able to answer OnNode.
func IndexByNode(informer cache.SharedIndexInformer) error {
	return index(informer, byNode, func(pod *corev1.Pod) []string {
		if pod.Spec.NodeName == "" {
			return nil
		}
		return []string{pod.Spec.NodeName}
	})
}

// index adds an index unless another controller already has.
func index(informer cache.SharedIndexInformer, name string, of func(*corev1.Pod) []string) error {
	if _, exists := informer.GetIndexer().GetIndexers()[name]; exists {
		return nil
	}
	err := informer.AddIndexers(cache.Indexers{name: func(object any) ([]string, error) {
		pod, ok := object.(*corev1.Pod)
		if !ok {
			return nil, nil
		}
		return of(pod), nil
	}})
	if err != nil {
		return fmt.Errorf("index pods by %s: %w", name, err)
	}
	return nil
}

// ControlledBy returns the pods whose controller has the given UID.
func ControlledBy(indexer cache.Indexer, controller types.UID) ([]*corev1.Pod, error) {
	return lookup(indexer, byController, string(controller))
}

// Orphans returns the namespace's pods that no controller has.
func Orphans(indexer cache.Indexer, namespace string) ([]*corev1.Pod, error) {
	return lookup(indexer, byController, orphanKey(namespace))
}

// OnNode returns the pods bound to the named node.
func OnNode(indexer cache.Indexer, node string) ([]*corev1.Pod, error) {
	return lookup(indexer, byNode, node)
}

// orphanKey cannot be a UID: UIDs have no slash.
func orphanKey(namespace string) string { return "orphans/" + namespace }

func lookup(indexer cache.Indexer, index, key string) ([]*corev1.Pod, error) {
	objects, err := indexer.ByIndex(index, key)
	if err != nil {
		return nil, fmt.Errorf("look up pods in index %s: %w", index, err)
	}
	pods := make([]*corev1.Pod, 0, len(objects))
	for _, object := range objects {
		if pod, ok := object.(*corev1.Pod); ok {
			pods = append(pods, pod)
		}
	}
	return pods, nil
}

// SetCondition puts a condition into the pod's status, keeping the time of
// transition if the status of that condition stays. It tells whether the pod
// changed.
func SetCondition(pod *corev1.Pod, condition corev1.PodCondition, now time.Time) bool {
	condition.LastTransitionTime = metav1.Time{Time: now}
	condition.ObservedGeneration = pod.Generation
	old := Condition(pod, condition.Type)
	if old == nil {
		pod.Status.Conditions = append(pod.Status.Conditions, condition)
		return true
	}
	if old.Status == condition.Status {
		condition.LastTransitionTime = old.LastTransitionTime
		if old.Reason == condition.Reason && old.Message == condition.Message {
			return false
		}
	}
	*old = condition
	return true
}
