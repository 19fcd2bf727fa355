package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"

	"golang.org/x/sync/errgroup"

	"github.com/skiff-run/skiff/control/scheduler/framework"
)

// Name is the scheduler's name in pods and events.
const Name = corev1.DefaultSchedulerName

// bindings bounds how many decisions are written to the API at once.
const bindings = 64

// Scheduler gives pods their nodes.
type Scheduler struct {
	client   kubernetes.Interface
	informer informers.SharedInformerFactory
	logger   *slog.Logger

	queue   *Queue
	cache   *clusterCache
	decider *decider
	volumes *volumeBinder
	writer  *writer

	namespaces  corelisters.NamespaceLister
	services    corelisters.ServiceLister
	replicaSets appslisters.ReplicaSetLister

	// waiting are the bindings that wait for volumes.
	waiting sync.WaitGroup
}

// New returns a scheduler on the client and the informers, which the caller
// starts after New and before Run.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) *Scheduler {
	s := &Scheduler{
		client: client, informer: factory, logger: logger.With("component", "scheduler"),
		queue: NewQueue(), cache: newCache(),
		namespaces:  factory.Core().V1().Namespaces().Lister(),
		services:    factory.Core().V1().Services().Lister(),
		replicaSets: factory.Apps().V1().ReplicaSets().Lister(),
	}
	s.volumes = newVolumeBinder(client, factory)
	s.decider = newDecider(s.defaultSelector, &s.volumes.Volumes)
	return s
}

// Run schedules until ctx ends and returns when every goroutine of it has. It
// may run once.
func (s *Scheduler) Run(ctx context.Context) error {
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: s.client.EventsV1()})
	if err := broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
		return fmt.Errorf("record events: %w", err)
	}
	defer broadcaster.Shutdown()
	s.writer = &writer{client: s.client, recorder: broadcaster.NewRecorder(scheme.Scheme, Name), logger: s.logger}

	registrations, err := s.watch()
	for _, registration := range registrations {
		defer registration.remove()
	}
	if err != nil {
		return err
	}
	for _, registration := range registrations {
		if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			return ctx.Err()
		}
	}
	s.logger.Info("scheduling")
	binders, bindCtx := errgroup.WithContext(ctx)
	binders.SetLimit(bindings)
	for {
		item, err := s.queue.Pop(ctx)
		if err != nil {
			break
		}
		s.schedule(bindCtx, item, binders)
	}
	s.waiting.Wait()
	return binders.Wait()
}

// schedule decides one pod and hands the decision to a binder.
func (s *Scheduler) schedule(ctx context.Context, item *Item, binders *errgroup.Group) {
	pod := item.Pod
	snapshot := s.cache.snapshot(s.namespaceLabels)
	node, why := s.decider.decide(pod, snapshot, s.cache.nominatedTo())
	if node == "" {
		s.refuse(ctx, item, snapshot, why)
		return
	}
	s.cache.assume(pod, node)
	decided := s.volumes.assume(pod.Pod, s.nodeOf(snapshot, node))
	bind := func() error {
		err := s.volumes.bind(ctx, pod.Pod, decided)
		if err == nil {
			err = s.writer.bind(ctx, pod.Pod, node)
		}
		if err != nil {
			s.cache.forget(pod.Pod.UID)
			s.queue.Retry(item)
			s.queue.Happened(framework.AssignedPodRemoved)
			if ctx.Err() == nil {
				s.logger.Warn("binding failed; it will be tried again", "pod", name(pod.Pod), "node", node, "error", err)
			}
			return nil
		}
		s.queue.Remove(pod.Pod.UID)
		return nil
	}
	if decided != nil {
		// Volumes may take minutes to be made: others do not wait for that.
		s.waiting.Go(func() { _ = bind() })
		return
	}
	binders.Go(bind)
}

func (s *Scheduler) nodeOf(snapshot *framework.Snapshot, name string) *corev1.Node {
	for _, node := range snapshot.Nodes {
		if node.Node.Name == name {
			return node.Node
		}
	}
	return nil
}

// refuse tells why a pod fits nowhere, makes room for it where that helps, and
// puts it aside.
func (s *Scheduler) refuse(ctx context.Context, item *Item, snapshot *framework.Snapshot, why *diagnosis) {
	pod := item.Pod
	victims, preemption := (*candidate)(nil), ""
	if why.nodes > 0 {
		victims, preemption = s.decider.preempt(pod, snapshot, why)
	}
	nominated := pod.Pod.Status.NominatedNodeName
	switch {
	case victims != nil:
		nominated = victims.node
		s.cache.nominate(pod, nominated)
		for _, victim := range victims.victims {
			if err := s.writer.evict(ctx, victim.Pod, pod.Pod, nominated); err != nil {
				s.logger.Warn("preemption failed; it will be tried again", "pod", name(pod.Pod), "victim", name(victim.Pod), "error", err)
				s.queue.Retry(item)
				return
			}
		}
	case preemption != "" && nominated != "" && !waitsForVictims(pod, snapshot):
		// The room it made is gone to somebody else.
		nominated = ""
		s.cache.nominate(pod, "")
	}
	if err := s.writer.refuse(ctx, pod.Pod, why.message(preemption), nominated); err != nil {
		if ctx.Err() == nil {
			s.logger.Warn("writing an unschedulable pod's status failed", "pod", name(pod.Pod), "error", err)
		}
		s.queue.Retry(item)
		return
	}
	helpedBy := why.helpedBy
	if nominated != "" {
		helpedBy |= framework.AssignedPodRemoved
	}
	s.queue.Unschedulable(item, helpedBy)
}

func (s *Scheduler) namespaceLabels(namespace string) labels.Set {
	object, err := s.namespaces.Get(namespace)
	if err != nil {
		return nil
	}
	return object.Labels
}

// defaultSelector joins the selectors of the services and the replica set a pod
// belongs to.
func (s *Scheduler) defaultSelector(pod *corev1.Pod) labels.Selector {
	if len(pod.Labels) == 0 {
		return nil
	}
	selector := labels.NewSelector()
	add := func(more labels.Selector) {
		if requirements, selectable := more.Requirements(); selectable {
			selector = selector.Add(requirements...)
		}
	}
	services, err := s.services.Services(pod.Namespace).List(labels.Everything())
	if err != nil {
		return nil
	}
	for _, service := range services {
		if len(service.Spec.Selector) == 0 {
			continue
		}
		if own := labels.SelectorFromSet(service.Spec.Selector); own.Matches(labels.Set(pod.Labels)) {
			add(own)
		}
	}
	for _, owner := range pod.OwnerReferences {
		if owner.Kind != "ReplicaSet" || owner.Controller == nil || !*owner.Controller {
			continue
		}
		if set, err := s.replicaSets.ReplicaSets(pod.Namespace).Get(owner.Name); err == nil {
			if own, err := metav1.LabelSelectorAsSelector(set.Spec.Selector); err == nil {
				add(own)
			}
		}
	}
	return selector
}

func name(pod *corev1.Pod) string { return pod.Namespace + "/" + pod.Name }
