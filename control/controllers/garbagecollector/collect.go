package garbagecollector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// collect judges a dependent's owners and acts on the decision.
func (c *Controller) collect(ctx context.Context, item object, current metav1.Object) error {
	owners := make([]judged, 0, len(current.GetOwnerReferences()))
	for _, reference := range current.GetOwnerReferences() {
		one, err := c.judge(ctx, item, reference)
		if err != nil {
			return err
		}
		if one.state == unknownKind {
			c.queue.AddAfter(item, unknownKindRetry)
		}
		owners = append(owners, one)
	}
	dependents := c.graph.of(item.uid)
	dependentWaits := slices.ContainsFunc(dependents, func(dependent object) bool {
		o, exists := dependent.monitor.get(dependent.namespace, dependent.name)
		return exists && foreground(o)
	})
	p := decide(owners, current.GetFinalizers(), len(dependents) > 0, dependentWaits)
	switch {
	case p.delete != "":
		if p.unblock {
			if err := c.unblock(ctx, item, current); err != nil {
				return err
			}
		}
		c.logger.Debug("deleting an object without owners", "resource", item.monitor.resource.Resource,
			"namespace", item.namespace, "name", item.name, "propagation", p.delete)
		return c.delete(ctx, item, current, p.delete)
	case len(p.drop) > 0:
		return c.dropReferences(ctx, item, current, p.drop...)
	}
	return nil
}

// find looks for the owner that an object in the namespace refers to.
func (c *Controller) find(namespace string, reference metav1.OwnerReference) (ownerState, metav1.Object, *monitor) {
	kind, served := c.monitors.kind(reference.APIVersion, reference.Kind)
	switch {
	case !served:
		return unknownKind, nil, nil
	case !kind.namespaced:
		namespace = ""
	case namespace == "":
		return unreachable, nil, nil
	}
	where := c.monitors.of(kind.resource.GroupResource())
	if where == nil {
		return missing, nil, nil
	}
	owner, exists := where.get(namespace, reference.Name)
	if !exists || owner.GetUID() != reference.UID {
		return missing, nil, nil
	}
	return here, owner, where
}

// judge is find, but asks the API about an owner the informer does not have.
func (c *Controller) judge(ctx context.Context, item object, reference metav1.OwnerReference) (judged, error) {
	state, owner, _ := c.find(item.namespace, reference)
	one := judged{uid: reference.UID, state: state, waiting: state == here && foreground(owner)}
	if state != missing {
		return one, nil
	}
	if c.gone.has(reference.UID) {
		one.state = gone
		return one, nil
	}
	kind, _ := c.monitors.kind(reference.APIVersion, reference.Kind)
	namespace := ""
	if kind.namespaced {
		namespace = item.namespace
	}
	live, err := c.metadata.Resource(kind.resource).Namespace(namespace).Get(ctx, reference.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), err == nil && live.UID != reference.UID:
		one.state = gone
		c.reportForeign(item, kind, reference)
		return one, nil
	case err != nil:
		return one, fmt.Errorf("read owner %s %s: %w", reference.Kind, reference.Name, err)
	}
	one.state, one.waiting = here, foreground(live)
	return one, nil
}

// reportForeign tells the user if the owner lives in another namespace, which is
// the usual mistake behind an owner that cannot be found.
func (c *Controller) reportForeign(item object, kind servedKind, reference metav1.OwnerReference) {
	where := c.monitors.of(kind.resource.GroupResource())
	if where == nil || !kind.namespaced || !where.hasUID(reference.UID) {
		return
	}
	about := &corev1.ObjectReference{
		APIVersion: item.monitor.kind.GroupVersion().String(), Kind: item.monitor.kind.Kind,
		Namespace: item.namespace, Name: item.name, UID: item.uid,
	}
	c.events.Eventf(about, corev1.EventTypeWarning, "OwnerRefInvalidNamespace",
		"ownerRef [%s/%s, namespace: %s, name: %s, uid: %s] does not exist in namespace %q",
		reference.APIVersion, reference.Kind, item.namespace, reference.Name, reference.UID, item.namespace)
}

// awaitDependents lets an owner go that waited for its dependents, or sees to it
// that they are on their way.
func (c *Controller) awaitDependents(ctx context.Context, item object, current metav1.Object) error {
	for _, dependent := range c.graph.of(item.uid) {
		c.queue.Add(dependent)
	}
	if c.graph.blocked(item.uid) {
		return nil
	}
	return c.removeFinalizer(ctx, item, current, metav1.FinalizerDeleteDependents)
}

// orphanDependents lets all dependents go, and then the owner.
func (c *Controller) orphanDependents(ctx context.Context, item object, current metav1.Object) error {
	dependents := c.graph.of(item.uid)
	failures := make([]error, len(dependents))
	var calls sync.WaitGroup
	for i, dependent := range dependents {
		calls.Go(func() {
			o, exists := dependent.monitor.get(dependent.namespace, dependent.name)
			if exists && o.GetUID() == dependent.uid {
				failures[i] = c.dropReferences(ctx, dependent, o, item.uid)
			}
		})
	}
	calls.Wait()
	if err := errors.Join(failures...); err != nil {
		return fmt.Errorf("orphan dependents: %w", err)
	}
	return c.removeFinalizer(ctx, item, current, metav1.FinalizerOrphanDependents)
}
