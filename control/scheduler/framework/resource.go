// Package framework holds the nouns of scheduling: what a pod asks for, what a
// node has left, the snapshot a decision is made on, and the interfaces of the
// filters and scores that make it. Everything here is plain data and pure
// functions: no clock, no goroutine, no API client.
package framework

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helper "k8s.io/component-helpers/resource"
)

// What scoring assumes of containers that request nothing, so that such pods
// spread too. The figures are Kubernetes' (pkg/scheduler/util/pod_resources.go).
const (
	DefaultMilliCPURequest = 100
	DefaultMemoryRequest   = 200 << 20
)

// Resource is an amount of each resource: CPU in thousandths of a core, memory
// and ephemeral storage in bytes, everything else in its own unit.
type Resource struct {
	MilliCPU, Memory, EphemeralStorage int64
	// Scalar holds extended resources and huge pages; nil when there are none.
	Scalar map[corev1.ResourceName]int64
}

// NewResource converts a resource list.
func NewResource(list corev1.ResourceList) Resource {
	var r Resource
	for name, quantity := range list {
		r.set(name, quantity)
	}
	return r
}

func (r *Resource) set(name corev1.ResourceName, quantity resource.Quantity) {
	switch name {
	case corev1.ResourceCPU:
		r.MilliCPU = quantity.MilliValue()
	case corev1.ResourceMemory:
		r.Memory = quantity.Value()
	case corev1.ResourceEphemeralStorage:
		r.EphemeralStorage = quantity.Value()
	case corev1.ResourcePods:
	default:
		if r.Scalar == nil {
			r.Scalar = map[corev1.ResourceName]int64{}
		}
		r.Scalar[name] = quantity.Value()
	}
}

// add adds sign times other.
func (r *Resource) add(other Resource, sign int64) {
	r.MilliCPU += sign * other.MilliCPU
	r.Memory += sign * other.Memory
	r.EphemeralStorage += sign * other.EphemeralStorage
	for name, amount := range other.Scalar {
		if r.Scalar == nil {
			r.Scalar = map[corev1.ResourceName]int64{}
		}
		if r.Scalar[name] += sign * amount; r.Scalar[name] == 0 {
			delete(r.Scalar, name)
		}
	}
}

// clone returns a copy that shares nothing.
func (r Resource) clone() Resource {
	if r.Scalar != nil {
		scalar := make(map[corev1.ResourceName]int64, len(r.Scalar))
		for name, amount := range r.Scalar {
			scalar[name] = amount
		}
		r.Scalar = scalar
	}
	return r
}

// podRequests is what a pod asks for: containers, init containers and overhead
// combined by Kubernetes' rules, resize in progress included.
func podRequests(pod *corev1.Pod) Resource {
	return NewResource(helper.PodRequests(pod, helper.PodResourcesOptions{UseStatusResources: true}))
}

// podScoringRequests is the same with the defaults for containers that request nothing.
func podScoringRequests(pod *corev1.Pod) Resource {
	return NewResource(helper.PodRequests(pod, helper.PodResourcesOptions{
		UseStatusResources: true,
		NonMissingContainerRequests: corev1.ResourceList{
			corev1.ResourceCPU:    *resource.NewMilliQuantity(DefaultMilliCPURequest, resource.DecimalSI),
			corev1.ResourceMemory: *resource.NewQuantity(DefaultMemoryRequest, resource.BinarySI),
		},
	}))
}
