package admission

import (
	"fmt"
	"math"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/skiff-run/skiff/agent/podsource"
	"github.com/skiff-run/skiff/agent/resources"
)

// UnexpectedReason is the reason of refusals that are nobody's decision.
const UnexpectedReason = "UnexpectedAdmissionError"

// lack is how much of a resource is missing, in milli-CPU for CPU.
type lack struct {
	name   v1.ResourceName
	amount int64
}

// Victims returns the pods to end so that a critical pod fits which lacks nothing but resources: as few as can be, and
// best effort before burstable before guaranteed ones. ok is false when the pod is not critical.
func Victims(pod *v1.Pod, active []*v1.Pod, node Node) (victims []*v1.Pod, err error, ok bool) {
	if !podsource.IsCritical(pod) {
		return nil, nil, false
	}
	var missing []lack
	for _, s := range shortages(pod, active, node) {
		missing = append(missing, lack{s.name, s.requested - (s.capacity - s.used)})
	}
	classes := map[v1.PodQOSClass][]*v1.Pod{}
	var all []*v1.Pod
	for _, other := range active {
		if preemptable(pod, other) {
			class := resources.QOSClass(other)
			classes[class] = append(classes[class], other)
			all = append(all, other)
		}
	}
	if left := without(missing, all); len(left) > 0 {
		return nil, noneFound(left), true
	}
	bestEffort, burstable, guaranteed := classes[v1.PodQOSBestEffort], classes[v1.PodQOSBurstable], classes[v1.PodQOSGuaranteed]
	// Each class gives only what the lower ones, all of them, cannot.
	fromGuaranteed := fewest(guaranteed, without(missing, slices.Concat(bestEffort, burstable)))
	fromBurstable := fewest(burstable, without(missing, slices.Concat(bestEffort, fromGuaranteed)))
	fromBestEffort := fewest(bestEffort, without(missing, slices.Concat(fromBurstable, fromGuaranteed)))
	return slices.Concat(fromBestEffort, fromBurstable, fromGuaranteed), nil, true
}

func noneFound(left []lack) error {
	var list strings.Builder
	for _, l := range left {
		fmt.Fprintf(&list, "(res: %v, q: %d), ", l.name, l.amount)
	}
	return fmt.Errorf("preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: [%s]", list.String())
}

func preemptable(pod, victim *v1.Pod) bool {
	if !podsource.IsCritical(victim) {
		return true
	}
	return pod.Spec.Priority != nil && victim.Spec.Priority != nil && *pod.Spec.Priority > *victim.Spec.Priority
}

// fewest picks the pods that come closest to what is missing, one after the other.
func fewest(pods []*v1.Pod, missing []lack) []*v1.Pod {
	pods = slices.Clone(pods)
	var picked []*v1.Pod
	for len(missing) > 0 && len(pods) > 0 {
		best := 0
		for i := range pods {
			d, b := distance(pods[i], missing), distance(pods[best], missing)
			if d < b || d == b && smaller(pods[i], pods[best]) {
				best = i
			}
		}
		missing = without(missing, pods[best:best+1])
		picked = append(picked, pods[best])
		pods = slices.Delete(pods, best, best+1)
	}
	return picked
}

// distance is how much of what is missing would still be if the pod ended; every resource counts the same.
func distance(pod *v1.Pod, missing []lack) float64 {
	sum := 0.0
	for _, l := range missing {
		if rest := float64(l.amount - requested(pod, l.name)); rest > 0 {
			sum += math.Pow(rest/float64(l.amount), 2)
		}
	}
	return sum
}

func smaller(a, b *v1.Pod) bool {
	for _, name := range []v1.ResourceName{v1.ResourceMemory, v1.ResourceCPU} {
		if x, y := requested(a, name), requested(b, name); x != y {
			return x < y
		}
	}
	return true
}

func without(missing []lack, pods []*v1.Pod) []lack {
	var left []lack
	for _, l := range missing {
		for _, pod := range pods {
			l.amount -= requested(pod, l.name)
		}
		if l.amount > 0 {
			left = append(left, l)
		}
	}
	return left
}

// requested is what ending the pod sets free.
func requested(pod *v1.Pod, name v1.ResourceName) int64 {
	if name == v1.ResourcePods {
		return 1
	}
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	q := requests[name]
	return amount(name, q.MilliValue(), q.Value())
}
