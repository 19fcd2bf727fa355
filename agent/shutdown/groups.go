package shutdown

import (
	"sort"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/internal/config"
)

// group are the pods that end at the same time, and how long they may take.
type group struct {
	grace time.Duration
	pods  []*v1.Pod
}

// groups sorts pods by priority: a pod belongs to the entry with the highest
// priority that is not above its own, and to the lowest when all are. The entries
// are in order of priority.
func groups(entries []config.ShutdownPriority, pods []*v1.Pod) []group {
	list := make([]group, len(entries))
	for i, e := range entries {
		list[i].grace = time.Duration(e.ShutdownGracePeriodSeconds) * time.Second
	}
	for _, pod := range pods {
		priority := int32(0)
		if pod.Spec.Priority != nil {
			priority = *pod.Spec.Priority
		}
		above := sort.Search(len(entries), func(i int) bool { return entries[i].Priority > priority })
		at := max(above-1, 0)
		list[at].pods = append(list[at].pods, pod)
	}
	return list
}

// total is the time all groups together may take.
func total(entries []config.ShutdownPriority) time.Duration {
	sum := time.Duration(0)
	for _, e := range entries {
		sum += time.Duration(e.ShutdownGracePeriodSeconds) * time.Second
	}
	return sum
}
