package replicaset

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

func (c *Controller) setChanged(set *appsv1.ReplicaSet) { c.queue.Add(reconcile.KeyOf(set)) }

func (c *Controller) setUpdated(old, set *appsv1.ReplicaSet) {
	if old.UID != set.UID {
		// Deleted and created again between two events: start clean.
		c.expected.forget(reconcile.KeyOf(old))
	}
	c.setChanged(set)
}

func (c *Controller) setDeleted(set *appsv1.ReplicaSet) {
	c.expected.forget(reconcile.KeyOf(set))
	c.setChanged(set)
}

func (c *Controller) podAdded(pod *corev1.Pod) {
	if pod.DeletionTimestamp != nil {
		// After a restart a pod may first be seen when it is already going.
		c.podDeleted(pod)
		return
	}
	controller := metav1.GetControllerOfNoCopy(pod)
	if controller == nil {
		c.offerOrphan(pod)
		return
	}
	if set := c.controllerOf(pod.Namespace, controller); set != nil {
		c.expected.created(reconcile.KeyOf(set), 1)
		c.setChanged(set)
	}
}

func (c *Controller) podUpdated(old, pod *corev1.Pod) {
	if pod.DeletionTimestamp != nil {
		// The deletion counts from here, not from the pod's last breath: its
		// replacement is created while it shuts down.
		c.podDeleted(pod)
		return
	}
	before, after := metav1.GetControllerOfNoCopy(old), metav1.GetControllerOfNoCopy(pod)
	moved := !equality.Semantic.DeepEqual(before, after)
	if moved && before != nil {
		if set := c.controllerOf(old.Namespace, before); set != nil {
			c.setChanged(set)
		}
	}
	if after != nil {
		if set := c.controllerOf(pod.Namespace, after); set != nil {
			c.setChanged(set)
		}
		return
	}
	if moved || !maps.Equal(old.Labels, pod.Labels) {
		c.offerOrphan(pod)
	}
}

func (c *Controller) podDeleted(pod *corev1.Pod) {
	controller := metav1.GetControllerOfNoCopy(pod)
	if controller == nil {
		return
	}
	if set := c.controllerOf(pod.Namespace, controller); set != nil {
		c.expected.deleted(reconcile.KeyOf(set), pod.UID)
		c.setChanged(set)
	}
}

// controllerOf returns the ReplicaSet a reference means, nil when it means
// something else or something gone.
func (c *Controller) controllerOf(namespace string, reference *metav1.OwnerReference) *appsv1.ReplicaSet {
	if reference.Kind != kind.Kind {
		return nil
	}
	set, err := c.sets.ReplicaSets(namespace).Get(reference.Name)
	if err != nil || set.UID != reference.UID {
		return nil
	}
	return set
}

// offerOrphan wakes the sets that may want to adopt the pod.
func (c *Controller) offerOrphan(pod *corev1.Pod) {
	if len(pod.Labels) == 0 {
		return
	}
	sets, err := c.sets.ReplicaSets(pod.Namespace).List(labels.Everything())
	if err != nil {
		return
	}
	for _, set := range sets {
		selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(pod.Labels)) {
			c.setChanged(set)
		}
	}
}
