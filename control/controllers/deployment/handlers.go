package deployment

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

func (c *Controller) enqueue(d *appsv1.Deployment) { c.queue.Add(reconcile.KeyOf(d)) }

func (c *Controller) setAdded(set *appsv1.ReplicaSet) {
	if controller := metav1.GetControllerOfNoCopy(set); controller != nil {
		c.enqueueControllerOf(set.Namespace, controller)
		return
	}
	if set.DeletionTimestamp == nil {
		c.offerOrphan(set)
	}
}

func (c *Controller) setUpdated(old, set *appsv1.ReplicaSet) {
	before, after := metav1.GetControllerOfNoCopy(old), metav1.GetControllerOfNoCopy(set)
	moved := !equality.Semantic.DeepEqual(before, after)
	if moved && before != nil {
		c.enqueueControllerOf(old.Namespace, before)
	}
	switch {
	case after != nil:
		c.enqueueControllerOf(set.Namespace, after)
	case moved || !maps.Equal(old.Labels, set.Labels):
		c.offerOrphan(set)
	}
}

func (c *Controller) setDeleted(set *appsv1.ReplicaSet) {
	if controller := metav1.GetControllerOfNoCopy(set); controller != nil {
		c.enqueueControllerOf(set.Namespace, controller)
	}
}

// podDeleted wakes a Deployment which may have waited for its last old pod to be
// gone before it creates new ones.
func (c *Controller) podDeleted(pod *corev1.Pod) {
	controller := metav1.GetControllerOfNoCopy(pod)
	if controller == nil || controller.Kind != "ReplicaSet" {
		return
	}
	set, err := c.sets.ReplicaSets(pod.Namespace).Get(controller.Name)
	if err != nil || set.UID != controller.UID {
		return
	}
	owner := metav1.GetControllerOfNoCopy(set)
	if owner == nil {
		return
	}
	if d := c.controllerOf(set.Namespace, owner); d != nil && d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		c.enqueue(d)
	}
}

func (c *Controller) enqueueControllerOf(namespace string, reference *metav1.OwnerReference) {
	if d := c.controllerOf(namespace, reference); d != nil {
		c.enqueue(d)
	}
}

// controllerOf returns the Deployment a reference means, nil when it means
// something else or something gone.
func (c *Controller) controllerOf(namespace string, reference *metav1.OwnerReference) *appsv1.Deployment {
	if reference.Kind != kind.Kind {
		return nil
	}
	d, err := c.deployments.Deployments(namespace).Get(reference.Name)
	if err != nil || d.UID != reference.UID {
		return nil
	}
	return d
}

// offerOrphan wakes the Deployments that may want to adopt the set.
func (c *Controller) offerOrphan(set *appsv1.ReplicaSet) {
	if len(set.Labels) == 0 {
		return
	}
	deployments, err := c.deployments.Deployments(set.Namespace).List(labels.Everything())
	if err != nil {
		return
	}
	for _, d := range deployments {
		selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(set.Labels)) {
			c.enqueue(d)
		}
	}
}
