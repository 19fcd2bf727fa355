// Package garbagecollector deletes objects whose owners are gone, and lets owners
// wait for, or let go of, what they own: kube-controller-manager's
// garbage-collector-controller.
//
// In flow the metadata of every object of every served kind that can be listed,
// watched and deleted; out flow deletions, patches of owner references and of the
// two finalizers foregroundDeletion and orphan.
//
// It remembers only who depends on whom (graph.go): whether an owner exists is
// asked of the informers that the other controllers use as well, so built-in kinds
// cost no second copy; of custom kinds it keeps the metadata. What is to happen to
// a dependent is decided by the pure function decide. Nothing is deleted that was
// not confirmed: an owner counts as gone when its deletion was seen or the API
// says so, and a deletion carries the version it was decided on.
package garbagecollector

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/record"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// Component is the controller's name in events.
const Component = "garbage-collector-controller"

const (
	workers = 10
	// unknownKindRetry is when a dependent is looked at again whose owner is of a
	// kind that is not served, or not any more.
	unknownKindRetry = time.Minute
)

// Controller collects garbage.
type Controller struct {
	client   kubernetes.Interface
	metadata metadata.Interface
	graph    *graph
	gone     *goneOwners
	monitors *monitors
	queue    *reconcile.Queue[object]
	events   record.EventRecorder
	logger   *slog.Logger
}

// New returns a controller on the clients. Informers of built-in kinds are taken
// from the factory and started when they are needed; they live as long as the
// context given to Run. The kinds served are asked for anew every rediscover.
func New(client kubernetes.Interface, objects metadata.Interface, factory informers.SharedInformerFactory, rediscover time.Duration, logger *slog.Logger) *Controller {
	c := &Controller{
		client: client, metadata: objects, graph: newGraph(), gone: newGoneOwners(), logger: logger,
	}
	c.monitors = newMonitors(client.Discovery(), objects, factory, rediscover, c.handlerFor, logger)
	c.queue = reconcile.NewQueue("garbagecollector", workers, logger, c.reconcile)
	return c
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	recorder, stop := reconcile.StartEvents(c.client, Component)
	defer stop()
	c.events = recorder
	defer c.queue.Close()
	defer c.monitors.close()
	if !c.monitors.start(ctx) {
		return nil
	}
	return reconcile.Run(ctx, nil, c.queue, reconcile.Beside(c.monitors.follow))
}

// reconcile does what the state of one object calls for: as an owner which waits
// for its dependents, or as a dependent whose owners may be gone.
func (c *Controller) reconcile(ctx context.Context, item object) error {
	current, exists := item.monitor.get(item.namespace, item.name)
	if !exists || current.GetUID() != item.uid {
		return nil
	}
	var err error
	switch {
	case orphaning(current):
		err = c.orphanDependents(ctx, item, current)
	case foreground(current):
		err = c.awaitDependents(ctx, item, current)
	case current.GetDeletionTimestamp() != nil || len(current.GetOwnerReferences()) == 0:
	default:
		err = c.collect(ctx, item, current)
	}
	if err != nil {
		return fmt.Errorf("%s %s/%s: %w", item.monitor.resource.Resource, item.namespace, item.name, err)
	}
	return nil
}
