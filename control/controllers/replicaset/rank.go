package replicaset

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/control/controllers/podstate"
)

// victims returns the count pods to delete, those whose loss hurts least first:
// unscheduled before scheduled, pending before unknown before running, unready
// before ready, then by lower pod-deletion-cost, by more related pods on the same
// node, by shorter readiness, by more restarts, and by youth. Times are compared
// by order of magnitude only, so that the pods of one burst are not deleted in a
// predictable order (KEP-2185).
func victims(pods, related []*corev1.Pod, count int, now time.Time) []*corev1.Pod {
	if count >= len(pods) {
		return pods
	}
	perNode := map[string]int{}
	for _, pod := range related {
		if podstate.Active(pod) {
			perNode[pod.Spec.NodeName]++
		}
	}
	candidates := make([]candidate, len(pods))
	for i, pod := range pods {
		candidates[i] = rank(pod, perNode[pod.Spec.NodeName], now)
	}
	slices.SortStableFunc(candidates, candidate.compare)
	chosen := make([]*corev1.Pod, count)
	for i := range chosen {
		chosen[i] = candidates[i].pod
	}
	return chosen
}

// candidate is a pod with everything its rank depends on.
type candidate struct {
	pod             *corev1.Pod
	scheduled       bool
	phase           int
	ready           bool
	cost            int32
	neighbours      int
	readySince      time.Time
	restarts        int32
	sidecarRestarts int32
	now             time.Time
}

func rank(pod *corev1.Pod, neighbours int, now time.Time) candidate {
	c := candidate{
		pod: pod, now: now, neighbours: neighbours,
		scheduled: pod.Spec.NodeName != "", ready: podstate.Ready(pod), readySince: podstate.ReadySince(pod),
		cost: deletionCost(pod),
	}
	switch pod.Status.Phase {
	case corev1.PodUnknown:
		c.phase = 1
	case corev1.PodRunning:
		c.phase = 2
	}
	for _, status := range pod.Status.ContainerStatuses {
		c.restarts = max(c.restarts, status.RestartCount)
	}
	for _, container := range pod.Spec.InitContainers {
		if container.RestartPolicy == nil || *container.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			continue
		}
		for _, status := range pod.Status.InitContainerStatuses {
			if status.Name == container.Name {
				c.sidecarRestarts = max(c.sidecarRestarts, status.RestartCount)
			}
		}
	}
	return c
}

// compare is negative when c is to be deleted before other.
func (c candidate) compare(other candidate) int {
	switch {
	case c.scheduled != other.scheduled:
		return trueLast(c.scheduled)
	case c.phase != other.phase:
		return c.phase - other.phase
	case c.ready != other.ready:
		return trueLast(c.ready)
	case c.cost != other.cost:
		return trueLast(c.cost > other.cost)
	case c.neighbours != other.neighbours:
		return other.neighbours - c.neighbours
	case c.ready && !c.readySince.Equal(other.readySince):
		return c.compareTimes(c.readySince, other.readySince, other)
	case c.restarts != other.restarts:
		return int(other.restarts - c.restarts)
	case c.sidecarRestarts != other.sidecarRestarts:
		return int(other.sidecarRestarts - c.sidecarRestarts)
	case !c.pod.CreationTimestamp.Equal(&other.pod.CreationTimestamp):
		return c.compareTimes(c.pod.CreationTimestamp.Time, other.pod.CreationTimestamp.Time, other)
	}
	return 0
}

// compareTimes puts the later time first; an unknown time counts as the latest.
func (c candidate) compareTimes(own, others time.Time, other candidate) int {
	if own.IsZero() || others.IsZero() {
		return trueLast(!own.IsZero())
	}
	if difference := magnitude(c.now.Sub(own)) - magnitude(c.now.Sub(others)); difference != 0 {
		return difference
	}
	return strings.Compare(string(c.pod.UID), string(other.pod.UID))
}

func magnitude(age time.Duration) int {
	if age <= 0 {
		return -1
	}
	return int(math.Log2(float64(age)))
}

func trueLast(own bool) int {
	if own {
		return 1
	}
	return -1
}

// deletionCost reads the pod's annotation; what validation would refuse counts as
// none.
func deletionCost(pod *corev1.Pod) int32 {
	text, annotated := pod.Annotations[corev1.PodDeletionCost]
	if !annotated || (len(text) > 1 && (text[0] == '+' || text[0] == '0')) {
		return 0
	}
	cost, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return 0
	}
	return int32(cost)
}
