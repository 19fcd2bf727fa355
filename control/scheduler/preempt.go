package scheduler

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/control/scheduler/framework"
)

// candidate is a node on which removing some pods would make room.
type candidate struct {
	node    string
	victims []*framework.PodInfo // highest priority first
}

// preempt finds the node where making room for the pod hurts least. It is pure.
// When there is none, the text says why, in kube-scheduler's words.
func (d *decider) preempt(pod *framework.PodInfo, snapshot *framework.Snapshot, why *diagnosis) (*candidate, string) {
	if policy := pod.Pod.Spec.PreemptionPolicy; policy != nil && *policy == corev1.PreemptNever {
		return nil, "not eligible due to preemptionPolicy=Never."
	}
	if waitsForVictims(pod, snapshot) {
		return nil, "not eligible due to a terminating pod on the nominated node."
	}
	refused := map[string]*framework.Rejection{}
	var candidates []*candidate
	for _, node := range snapshot.Nodes {
		rejection := why.rejections[node.Node.Name]
		if rejection == nil || rejection.Unresolvable {
			refused[node.Node.Name] = &framework.Rejection{Reasons: []string{"Preemption is not helpful for scheduling"}}
			continue
		}
		victims := d.victims(pod, node, snapshot)
		if len(victims) == 0 {
			refused[node.Node.Name] = &framework.Rejection{Reasons: []string{"No preemption victims found for incoming pod"}}
			continue
		}
		candidates = append(candidates, &candidate{node: node.Node.Name, victims: victims})
	}
	if len(candidates) == 0 {
		return nil, histogram(why.nodes, refused)
	}
	return slices.MinFunc(candidates, compareHarm), ""
}

// waitsForVictims says whether the pod has preempted before and pods of lower
// priority are still ending on its node: more victims would be too many.
func waitsForVictims(pod *framework.PodInfo, snapshot *framework.Snapshot) bool {
	nominated := pod.Pod.Status.NominatedNodeName
	if nominated == "" {
		return false
	}
	for _, node := range snapshot.Nodes {
		if node.Node.Name != nominated {
			continue
		}
		for _, other := range node.Pods {
			if other.Pod.DeletionTimestamp != nil && other.Priority() < pod.Priority() {
				return true
			}
		}
	}
	return false
}

// victims returns the fewest pods whose removal makes room on the node: all of
// lower priority are taken away, then as many as possible put back, the most
// important first. Nil when even without all of them the pod does not fit.
func (d *decider) victims(pod *framework.PodInfo, node *framework.NodeInfo, snapshot *framework.Snapshot) []*framework.PodInfo {
	var lower []*framework.PodInfo
	what := node.Clone()
	for _, other := range node.Pods {
		if other.Priority() < pod.Priority() {
			lower = append(lower, other)
			what.RemovePod(other.Pod.UID)
		}
	}
	fits := func() bool {
		return firstRejection(d.prepare(pod, snapshot.With(what)), what, nil) == nil
	}
	if len(lower) == 0 || !fits() {
		return nil
	}
	slices.SortFunc(lower, moreImportant)
	var victims []*framework.PodInfo
	for _, other := range lower {
		what.AddPod(other)
		if !fits() {
			what.RemovePod(other.Pod.UID)
			victims = append(victims, other)
		}
	}
	return victims
}

// moreImportant orders by priority, then by who runs longer.
func moreImportant(a, b *framework.PodInfo) int {
	if a.Priority() != b.Priority() {
		return cmp.Compare(b.Priority(), a.Priority())
	}
	return startOf(a).Compare(startOf(b).Time)
}

func startOf(pod *framework.PodInfo) metav1.Time {
	if start := pod.Pod.Status.StartTime; start != nil {
		return *start
	}
	return metav1.Now()
}

// compareHarm orders candidates as kube-scheduler does (no disruption budgets
// are considered): lower highest priority, lower sum of priorities, fewer
// victims, younger most important victim.
func compareHarm(a, b *candidate) int {
	sum := func(c *candidate) (total int64) {
		for _, victim := range c.victims {
			// Shifted so that negative priorities do not reward more victims.
			total += int64(victim.Priority()) + 1<<31
		}
		return total
	}
	return cmp.Or(
		cmp.Compare(a.victims[0].Priority(), b.victims[0].Priority()),
		cmp.Compare(sum(a), sum(b)),
		cmp.Compare(len(a.victims), len(b.victims)),
		startOf(b.victims[0]).Compare(startOf(a.victims[0]).Time),
		cmp.Compare(a.node, b.node),
	)
}
