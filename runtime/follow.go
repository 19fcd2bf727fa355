package runtime

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	eventtypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/typeurl/v2"
)

// probeTopic is that of an event of our own, which proves that the subscription
// stands: containerd does not say so, and a look that is taken before it stands
// could miss an exit that comes between the two.
const probeTopic = "/skiff/probe"

const (
	probeEvery   = 50 * time.Millisecond
	reconnectMin = 50 * time.Millisecond
	reconnectMax = 500 * time.Millisecond
)

// follow subscribes to containerd's events, takes a complete look, and goes on in
// the background; when the stream breaks it begins again.
func (r *Runtime) follow(ctx context.Context) error {
	first := make(chan error, 1)
	r.running.Add(1)
	go func() {
		defer r.running.Done()
		wait := reconnectMin
		for {
			synced, err := r.session(r.life, first)
			r.setConnected(false)
			if r.life.Err() != nil {
				return
			}
			if synced {
				wait = reconnectMin
				r.logger.Warn("events from containerd stopped; connecting again", "error", err)
			}
			timer := time.NewTimer(wait)
			select {
			case <-r.life.Done():
				timer.Stop()
				return
			case <-timer.C:
			}
			wait = min(2*wait, reconnectMax)
		}
	}()
	select {
	case err := <-first:
		return err
	case <-ctx.Done():
		return fmt.Errorf("follow events of containerd at %s: %w", r.options.ContainerdAddress, ctx.Err())
	}
}

func (r *Runtime) setConnected(connected bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.connected = connected
}

// session is one subscription, from the look at its beginning to the stream's end.
func (r *Runtime) session(ctx context.Context, first chan<- error) (synced bool, err error) {
	var beating sync.WaitGroup
	defer beating.Wait()
	ctx, cancel := context.WithCancel(namespaces.WithNamespace(ctx, r.options.Namespace))
	defer cancel()
	silent := make(chan error, 1)
	stream, errs := r.client.EventService().Subscribe(ctx,
		`topic=="/tasks/exit"`, `topic=="/tasks/oom"`, `topic~="^/images/"`, `topic=="`+probeTopic+`"`)
	probe := time.NewTicker(probeEvery)
	defer probe.Stop()
	nonce, err := newID()
	if err != nil {
		return false, err
	}
	var early []*events.Envelope
	sendProbe := func() error {
		ctx, cancel := context.WithTimeout(ctx, answerLimit)
		defer cancel()
		return r.client.EventService().Publish(ctx, probeTopic, &eventtypes.NamespaceCreate{Name: nonce})
	}
	if err := sendProbe(); err != nil {
		return false, err
	}
	for {
		select {
		case e := <-stream:
			if e == nil || e.Namespace != r.options.Namespace {
				continue
			}
			if synced {
				r.handle(ctx, e)
				continue
			}
			if e.Topic != probeTopic {
				early = append(early, e)
				continue
			}
			if !isProbe(e, nonce) {
				continue
			}
			probe.Stop()
			err := r.resync(ctx)
			select {
			case first <- err:
			default:
			}
			if err != nil {
				return false, err
			}
			synced = true
			r.setConnected(true)
			beating.Go(func() { silent <- r.beat(ctx) })
			for _, e := range early {
				r.handle(ctx, e)
			}
			early = nil
			r.events.resync()
		case <-probe.C:
			if err := sendProbe(); err != nil {
				return synced, err
			}
		case err := <-errs:
			if err == nil {
				err = errors.New("the stream ended")
			}
			return synced, err
		case err := <-silent:
			return synced, err
		case <-ctx.Done():
			return synced, ctx.Err()
		}
	}
}

func isProbe(e *events.Envelope, nonce string) bool {
	v, err := typeurl.UnmarshalAny(e.Event)
	if err != nil {
		return false
	}
	n, ok := v.(*eventtypes.NamespaceCreate)
	return ok && n.GetName() == nonce
}

// handle acts on one event. What takes time happens in the background.
func (r *Runtime) handle(_ context.Context, e *events.Envelope) {
	v, err := typeurl.UnmarshalAny(e.Event)
	if err != nil {
		if e.Topic != probeTopic {
			r.logger.Warn("event of containerd cannot be read", "topic", e.Topic, "error", err)
		}
		return
	}
	switch v := v.(type) {
	case *eventtypes.TaskExit:
		if v.GetID() != v.GetContainerID() {
			return // a command's end; who runs it waits for it
		}
		r.exited(v.GetContainerID(), exit{code: v.GetExitStatus(), at: v.GetExitedAt().AsTime()})
	case *eventtypes.TaskOOM:
		if c, err := r.container(v.GetContainerID()); err == nil {
			c.mu.Lock()
			c.oom = true
			c.mu.Unlock()
		}
	case *eventtypes.ImageCreate:
		r.refreshImage(v.GetName())
	case *eventtypes.ImageUpdate:
		r.refreshImage(v.GetName())
	case *eventtypes.ImageDelete:
		r.refreshImage(v.GetName())
	}
}

func (r *Runtime) refreshImage(name string) {
	r.background(func(ctx context.Context) {
		if err := r.images.Refresh(ctx, name); err != nil {
			r.logger.Debug("image cannot be used here", "image", name, "error", err)
		}
	})
}

// exited notes the exit of a container, or of the init process of a pod, whose
// namespaces end with it.
func (r *Runtime) exited(id string, e exit) {
	if sandboxID, ok := strings.CutSuffix(id, "-init"); ok {
		if s, err := r.sandbox(sandboxID); err == nil {
			s.mu.Lock()
			s.ready, s.initPID = false, 0
			s.mu.Unlock()
			r.events.resync()
		}
		return
	}
	c, err := r.container(id)
	if err != nil {
		return
	}
	r.background(func(ctx context.Context) { r.noteExit(ctx, c, e) })
}
