package reconcile

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/client-go/tools/cache"
)

// Source is an informer and what to do with its events.
type Source struct {
	Informer cache.SharedInformer
	Handler  cache.ResourceEventHandler
}

// Runner is a queue, or whatever else works beside one until its context ends.
type Runner interface {
	run(ctx context.Context)
	// Close ends what there is before run; it is called whether or not run was.
	Close()
}

// Beside makes a function that returns when its context ends a Runner.
type Beside func(ctx context.Context)

func (f Beside) run(ctx context.Context) { f(ctx) }

// Close does nothing: a function that was not called has nothing to end.
func (f Beside) Close() {}

// Run connects the sources, waits until each has told everything it knew at the
// start, runs all runners, and returns when ctx has ended and everything of it
// has stopped. The informers themselves belong to the caller.
func Run(ctx context.Context, sources []Source, runners ...Runner) error {
	for _, r := range runners {
		defer r.Close()
	}
	subscriptions, err := Subscribe(sources...)
	defer subscriptions.Close()
	if err != nil {
		return err
	}
	if !subscriptions.WaitForSync(ctx) {
		return nil
	}
	var running sync.WaitGroup
	for _, r := range runners {
		running.Go(func() { r.run(ctx) })
	}
	running.Wait()
	return nil
}

// Subscriptions are handlers registered with informers.
type Subscriptions []subscription

type subscription struct {
	informer     cache.SharedInformer
	registration cache.ResourceEventHandlerRegistration
}

// Subscribe registers every source's handler. What it returns has to be closed
// even when there was an error.
func Subscribe(sources ...Source) (Subscriptions, error) {
	var all Subscriptions
	for _, source := range sources {
		registration, err := source.Informer.AddEventHandler(source.Handler)
		if err != nil {
			return all, fmt.Errorf("register an event handler: %w", err)
		}
		all = append(all, subscription{source.Informer, registration})
	}
	return all, nil
}

// WaitForSync waits until every handler has seen all objects its informer knew at
// the start; false means that ctx ended before.
func (s Subscriptions) WaitForSync(ctx context.Context) bool {
	for _, one := range s {
		if !cache.WaitForCacheSync(ctx.Done(), one.registration.HasSynced) {
			return false
		}
	}
	return true
}

// Close takes the handlers out again.
func (s Subscriptions) Close() {
	for _, one := range s {
		// It fails only for a stopped informer, which calls nobody any more.
		_ = one.informer.RemoveEventHandler(one.registration)
	}
}
