package garbagecollector

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// handlerFor returns what is to be done about the events of one kind.
func (c *Controller) handlerFor(m *monitor) cache.ResourceEventHandler {
	return reconcile.Handler(
		func(added metav1.Object) { c.changed(m, nil, added) },
		func(old, current metav1.Object) {
			if old.GetUID() != current.GetUID() {
				c.deleted(m, old)
				old = nil
			}
			c.changed(m, old, current)
		},
		func(gone metav1.Object) { c.deleted(m, gone) },
	)
}

// changed takes up an object's references and wakes whoever has to do something
// about the change.
func (c *Controller) changed(m *monitor, old, current metav1.Object) {
	item := object{monitor: m, namespace: current.GetNamespace(), name: current.GetName(), uid: current.GetUID()}
	var former []metav1.OwnerReference
	if old != nil {
		former = old.GetOwnerReferences()
	}
	present := current.GetOwnerReferences()
	if !equality.Semantic.DeepEqual(former, present) {
		// First the edge, then the question whether the owner is there: an owner that
		// goes in between finds the edge.
		c.graph.set(item, former, present)
		for _, reference := range former {
			if !slices.ContainsFunc(present, func(r metav1.OwnerReference) bool { return r.UID == reference.UID && blocks(r) == blocks(reference) }) {
				c.wakeWaiting(item.namespace, reference)
			}
		}
		for _, reference := range present {
			if state, owner, _ := c.find(item.namespace, reference); state != here || foreground(owner) {
				c.queue.Add(item)
				break
			}
		}
	}
	if orphaning(current) || foreground(current) {
		c.queue.Add(item)
	}
}

// deleted forgets an object and wakes its dependents and the owners that waited
// for it.
func (c *Controller) deleted(m *monitor, gone metav1.Object) {
	item := object{monitor: m, namespace: gone.GetNamespace(), name: gone.GetName(), uid: gone.GetUID()}
	c.graph.set(item, gone.GetOwnerReferences(), nil)
	for _, reference := range gone.GetOwnerReferences() {
		c.wakeWaiting(item.namespace, reference)
	}
	dependents := c.graph.of(item.uid)
	if len(dependents) > 0 {
		c.gone.add(item.uid)
	}
	for _, dependent := range dependents {
		c.queue.Add(dependent)
	}
}

// wakeWaiting wakes an owner that waits for its dependents, for there may be one
// less.
func (c *Controller) wakeWaiting(namespace string, reference metav1.OwnerReference) {
	state, owner, where := c.find(namespace, reference)
	if state == here && foreground(owner) {
		c.queue.Add(object{monitor: where, namespace: owner.GetNamespace(), name: owner.GetName(), uid: owner.GetUID()})
	}
}

// orphaning tells whether the object is being deleted and its dependents are to
// stay.
func orphaning(o metav1.Object) bool {
	return o.GetDeletionTimestamp() != nil && slices.Contains(o.GetFinalizers(), metav1.FinalizerOrphanDependents)
}

// foreground tells whether the object is being deleted after its dependents.
func foreground(o metav1.Object) bool {
	return o.GetDeletionTimestamp() != nil && slices.Contains(o.GetFinalizers(), metav1.FinalizerDeleteDependents)
}
