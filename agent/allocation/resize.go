package allocation

import (
	"cmp"
	"encoding/json"
	"slices"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Pending is a pod whose spec asks for other amounts than it was given.
type Pending struct {
	// Wanted is the pod as its spec has it, Allocated with the amounts it has.
	Wanted, Allocated *v1.Pod
	// Since is when the resize was first put off, in the order of the API's times; empty when it was not.
	Since string
}

// Order sorts resizes by who is served first: who asks for no more than it has, then by priority, then
// guaranteed pods, then who has waited longest.
func Order(pending []Pending) {
	number := func(b bool) int {
		if b {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(pending, func(a, b Pending) int {
		return cmp.Or(
			cmp.Compare(number(!a.grows()), number(!b.grows())),
			cmp.Compare(priority(b.Wanted), priority(a.Wanted)),
			cmp.Compare(number(guaranteed(a.Wanted)), number(guaranteed(b.Wanted))),
			cmp.Compare(number(a.Since != ""), number(b.Since != "")),
			cmp.Compare(a.Since, b.Since),
		)
	})
}

// grows reports whether the requests of cpu or memory become larger.
func (p Pending) grows() bool {
	before := resourcehelper.PodRequests(p.Allocated, resourcehelper.PodResourcesOptions{})
	after := resourcehelper.PodRequests(p.Wanted, resourcehelper.PodResourcesOptions{})
	return after.Cpu().Cmp(*before.Cpu()) > 0 || after.Memory().Cmp(*before.Memory()) > 0
}

func priority(pod *v1.Pod) int32 {
	if pod.Spec.Priority == nil {
		return 0
	}
	return *pod.Spec.Priority
}

func guaranteed(pod *v1.Pod) bool { return pod.Status.QOSClass == v1.PodQOSGuaranteed }

// summary is what the events about a resize say of the pod.
type summary struct {
	InitContainers []amounts `json:"initContainers,omitempty"`
	Containers     []amounts `json:"containers,omitempty"`
	Generation     int64     `json:"generation"`
	Error          string    `json:"error,omitempty"`
}

type amounts struct {
	Name      string                  `json:"name"`
	Resources v1.ResourceRequirements `json:"resources"`
}

// Message is the text of an event about a resize: what happened, and the amounts in question.
func Message(what string, pod *v1.Pod, generation int64, why string) string {
	s := summary{Generation: generation, Error: why}
	for i := range pod.Spec.InitContainers {
		s.InitContainers = append(s.InitContainers, amounts{pod.Spec.InitContainers[i].Name, pod.Spec.InitContainers[i].Resources})
	}
	for i := range pod.Spec.Containers {
		s.Containers = append(s.Containers, amounts{pod.Spec.Containers[i].Name, pod.Spec.Containers[i].Resources})
	}
	data, err := json.Marshal(s)
	if err != nil {
		return what
	}
	return what + ": " + string(data)
}
