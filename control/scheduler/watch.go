package scheduler

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/tools/cache"

	"github.com/skiff-run/skiff/control/scheduler/framework"
)

// registration is an event handler that can be taken off its shared informer,
// which outlives the scheduler.
type registration struct {
	cache.ResourceEventHandlerRegistration
	remove func()
}

// watch subscribes to pods, nodes and namespaces.
func (s *Scheduler) watch() ([]registration, error) {
	var registrations []registration
	for _, each := range []struct {
		what     string
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{"nodes", s.informer.Core().V1().Nodes().Informer(), handler(s.nodeChanged, s.nodeRemoved)},
		{"pods", s.informer.Core().V1().Pods().Informer(), handler(s.podChanged, s.podRemoved)},
		{"persistent volume claims", s.informer.Core().V1().PersistentVolumeClaims().Informer(), handler(s.claimChanged, func(*corev1.PersistentVolumeClaim) { s.storageChanged() })},
		{"persistent volumes", s.informer.Core().V1().PersistentVolumes().Informer(), handler(s.volumeChanged, func(*corev1.PersistentVolume) { s.storageChanged() })},
		{"storage classes", s.informer.Storage().V1().StorageClasses().Informer(), onStorage[storagev1.StorageClass](s)},
		{"CSI drivers", s.informer.Storage().V1().CSIDrivers().Informer(), onStorage[storagev1.CSIDriver](s)},
		{"CSI nodes", s.informer.Storage().V1().CSINodes().Informer(), onStorage[storagev1.CSINode](s)},
		{"CSI storage capacities", s.informer.Storage().V1().CSIStorageCapacities().Informer(), onStorage[storagev1.CSIStorageCapacity](s)},
		{"namespaces", s.informer.Core().V1().Namespaces().Informer(), handler(s.namespaceChanged, func(*corev1.Namespace) {})},
	} {
		handle, err := each.informer.AddEventHandler(each.handler)
		if err != nil {
			return registrations, fmt.Errorf("watch %s: %w", each.what, err)
		}
		registrations = append(registrations, registration{handle, func() {
			// The only error is that the informer has stopped.
			_ = each.informer.RemoveEventHandler(handle)
		}})
	}
	return registrations, nil
}

// handler adapts typed functions; changed gets nil as the old object of an addition.
func handler[T any](changed func(old, current *T), removed func(*T)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) {
			if current, ok := object.(*T); ok {
				changed(nil, current)
			}
		},
		UpdateFunc: func(before, object any) {
			old, _ := before.(*T)
			if current, ok := object.(*T); ok {
				changed(old, current)
			}
		},
		DeleteFunc: func(object any) {
			if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = tombstone.Obj
			}
			if last, ok := object.(*T); ok {
				removed(last)
			}
		},
	}
}

func (s *Scheduler) podChanged(old, pod *corev1.Pod) {
	info, err := framework.NewPodInfo(pod)
	if err != nil {
		s.logger.Error("a pod's affinity cannot be read; it stays unscheduled", "pod", name(pod), "error", err)
		return
	}
	switch {
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		s.queue.Remove(pod.UID)
		s.cache.removePod(pod.UID)
		if old == nil || old.Status.Phase != pod.Status.Phase {
			s.queue.Happened(framework.AssignedPodRemoved)
		}
	case pod.Spec.NodeName != "":
		s.queue.Remove(pod.UID)
		s.cache.setPod(info)
		s.queue.Happened(assignedPodEvent(old, info))
	case pod.Spec.SchedulerName != Name || len(pod.Spec.SchedulingGates) > 0:
	case pod.DeletionTimestamp != nil:
		s.queue.Remove(pod.UID)
		s.cache.removePod(pod.UID)
	default:
		if nominated := pod.Status.NominatedNodeName; nominated != "" {
			s.cache.nominate(info, nominated)
		}
		// The scheduler's own status writes must not wake the pod again.
		spec := old == nil || !equality.Semantic.DeepEqual(old.Spec, pod.Spec) || !maps.Equal(old.Labels, pod.Labels)
		s.queue.Put(info, spec)
	}
}

func assignedPodEvent(old *corev1.Pod, pod *framework.PodInfo) framework.Event {
	if old == nil || old.Spec.NodeName == "" {
		return framework.AssignedPodAdded
	}
	var event framework.Event
	if !maps.Equal(old.Labels, pod.Pod.Labels) {
		event |= framework.AssignedPodLabelsChanged
	}
	if !equality.Semantic.DeepEqual(old.Spec.Containers, pod.Pod.Spec.Containers) {
		// A resize in place may have made room.
		event |= framework.AssignedPodRemoved
	}
	return event
}

func (s *Scheduler) podRemoved(pod *corev1.Pod) {
	s.queue.Remove(pod.UID)
	s.cache.removePod(pod.UID)
	s.volumes.wake()
	if pod.Spec.NodeName != "" || pod.Status.NominatedNodeName != "" {
		s.queue.Happened(framework.AssignedPodRemoved)
	}
}

func (s *Scheduler) nodeChanged(old, node *corev1.Node) {
	event := nodeEvent(old, node)
	if event == 0 && slices.EqualFunc(old.Status.Images, node.Status.Images, func(a, b corev1.ContainerImage) bool {
		return a.SizeBytes == b.SizeBytes && slices.Equal(a.Names, b.Names)
	}) {
		// A heartbeat.
		return
	}
	s.cache.setNode(node)
	s.queue.Happened(event)
}

func nodeEvent(old, node *corev1.Node) framework.Event {
	if old == nil {
		return framework.NodeAdded
	}
	var event framework.Event
	if !equality.Semantic.DeepEqual(old.Status.Allocatable, node.Status.Allocatable) {
		event |= framework.NodeAllocatableChanged
	}
	if !maps.Equal(old.Labels, node.Labels) {
		event |= framework.NodeLabelsChanged
	}
	if old.Spec.Unschedulable != node.Spec.Unschedulable || !equality.Semantic.DeepEqual(old.Spec.Taints, node.Spec.Taints) {
		event |= framework.NodeTaintsChanged
	}
	return event
}

func (s *Scheduler) nodeRemoved(node *corev1.Node) { s.cache.removeNode(node.Name) }

func (s *Scheduler) namespaceChanged(old, namespace *corev1.Namespace) {
	if old == nil || !maps.Equal(old.Labels, namespace.Labels) {
		s.queue.Happened(framework.NamespaceChanged)
	}
}

func onStorage[T any](s *Scheduler) cache.ResourceEventHandler {
	return handler(func(_, _ *T) { s.storageChanged() }, func(*T) { s.storageChanged() })
}

func (s *Scheduler) claimChanged(_, claim *corev1.PersistentVolumeClaim) {
	s.volumes.seeClaim(claim)
	s.storageChanged()
}

func (s *Scheduler) volumeChanged(_, volume *corev1.PersistentVolume) {
	s.volumes.seeVolume(volume)
	s.storageChanged()
}

func (s *Scheduler) storageChanged() {
	s.volumes.wake()
	s.queue.Happened(framework.StorageChanged)
}
