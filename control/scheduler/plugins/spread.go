package plugins

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	schedulingcorev1 "k8s.io/component-helpers/scheduling/corev1"

	"github.com/skiff-run/skiff/control/scheduler/framework"
)

// podTopologySpread honours topologySpreadConstraints with DoNotSchedule.
type podTopologySpread struct{}

func (podTopologySpread) Name() string { return "PodTopologySpread" }
func (podTopologySpread) Events() framework.Event {
	return framework.NodeAdded | framework.NodeLabelsChanged | framework.NodeTaintsChanged |
		framework.AssignedPodAdded | framework.AssignedPodRemoved | framework.AssignedPodLabelsChanged
}

// constraint is a parsed topology spread constraint.
type constraint struct {
	key        string
	maxSkew    int64
	minDomains int64
	selector   labels.Selector
	affinity   bool // only nodes that the pod's node affinity admits count
	taints     bool // only nodes whose taints the pod tolerates count
}

func constraints(pod *corev1.Pod, action corev1.UnsatisfiableConstraintAction) []constraint {
	var out []constraint
	for _, c := range pod.Spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable != action {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(c.LabelSelector)
		if err != nil {
			continue
		}
		// The values of matchLabelKeys narrow the selector to, say, one revision.
		for _, key := range c.MatchLabelKeys {
			if value, has := pod.Labels[key]; has {
				if r, err := labels.NewRequirement(key, "in", []string{value}); err == nil {
					selector = selector.Add(*r)
				}
			}
		}
		parsed := constraint{key: c.TopologyKey, maxSkew: int64(c.MaxSkew), minDomains: 1, selector: selector, affinity: true}
		if c.MinDomains != nil {
			parsed.minDomains = int64(*c.MinDomains)
		}
		if c.NodeAffinityPolicy != nil {
			parsed.affinity = *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor
		}
		if c.NodeTaintsPolicy != nil {
			parsed.taints = *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor
		}
		out = append(out, parsed)
	}
	return out
}

// includes says whether the constraint counts what runs on a node.
func (c *constraint) includes(pod *corev1.Pod, required nodeaffinity.RequiredNodeAffinity, node *corev1.Node) bool {
	if c.affinity {
		if matches, err := required.Match(node); err != nil || !matches {
			return false
		}
	}
	if c.taints {
		_, untolerated := schedulingcorev1.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, pod.Spec.Tolerations,
			func(t *corev1.Taint) bool { return t.Effect != corev1.TaintEffectPreferNoSchedule }, true)
		return !untolerated
	}
	return true
}

func (c *constraint) count(node *framework.NodeInfo, namespace string) int64 {
	var matching int64
	if c.selector.Empty() {
		return 0
	}
	for _, other := range node.Pods {
		if other.Pod.DeletionTimestamp == nil && other.Pod.Namespace == namespace && c.selector.Matches(labels.Set(other.Pod.Labels)) {
			matching++
		}
	}
	return matching
}

func hasAllKeys(node *corev1.Node, all []constraint) bool {
	for i := range all {
		if _, has := framework.Topology(node, all[i].key); !has {
			return false
		}
	}
	return true
}

func (podTopologySpread) Prepare(pod *framework.PodInfo, snapshot *framework.Snapshot) framework.Check {
	all := constraints(pod.Pod, corev1.DoNotSchedule)
	if len(all) == 0 {
		return nil
	}
	required := nodeaffinity.GetRequiredNodeAffinity(pod.Pod)
	counts := make([]map[string]int64, len(all))
	for i := range all {
		counts[i] = map[string]int64{}
	}
	for _, node := range snapshot.Nodes {
		if !hasAllKeys(node.Node, all) {
			continue
		}
		for i := range all {
			if all[i].includes(pod.Pod, required, node.Node) {
				value, _ := framework.Topology(node.Node, all[i].key)
				counts[i][value] += all[i].count(node, pod.Pod.Namespace)
			}
		}
	}
	least := make([]int64, len(all))
	for i := range all {
		least[i] = math.MaxInt32
		for _, n := range counts[i] {
			least[i] = min(least[i], n)
		}
		if int64(len(counts[i])) < all[i].minDomains {
			least[i] = 0
		}
	}
	return func(node *framework.NodeInfo) *framework.Rejection {
		const reason = "node(s) didn't match pod topology spread constraints"
		for i := range all {
			value, has := framework.Topology(node.Node, all[i].key)
			if !has {
				return rejectForGood(reason + " (missing required label)")
			}
			self := int64(0)
			if all[i].selector.Matches(labels.Set(pod.Pod.Labels)) {
				self = 1
			}
			if counts[i][value]+self-least[i] > all[i].maxSkew {
				return reject(reason)
			}
		}
		return nil
	}
}

// spreadScore prefers domains with fewer fellows of the pod: by its
// ScheduleAnyway constraints, or by Kubernetes' defaults (hosts, then zones)
// for pods of a service or replica set that have no constraints.
type spreadScore struct {
	defaultSelector func(*corev1.Pod) labels.Selector
}

func (spreadScore) Name() string  { return "PodTopologySpread" }
func (spreadScore) Weight() int64 { return 2 }

// soft returns the constraints to score by, and whether nodes that lack a key
// are left out.
func (s spreadScore) soft(pod *corev1.Pod) ([]constraint, bool) {
	if len(pod.Spec.TopologySpreadConstraints) > 0 {
		return constraints(pod, corev1.ScheduleAnyway), true
	}
	selector := s.defaultSelector(pod)
	if selector == nil || selector.Empty() {
		return nil, false
	}
	return []constraint{
		{key: corev1.LabelHostname, maxSkew: 3, selector: selector, affinity: true},
		{key: corev1.LabelTopologyZone, maxSkew: 5, selector: selector, affinity: true},
	}, false
}

func (s spreadScore) Score(pod *framework.PodInfo, snapshot *framework.Snapshot, nodes []*framework.NodeInfo) []int64 {
	all, requireAll := s.soft(pod.Pod)
	if len(all) == 0 {
		return nil
	}
	required := nodeaffinity.GetRequiredNodeAffinity(pod.Pod)
	counts := make([]map[string]int64, len(all))
	for i := range all {
		counts[i] = map[string]int64{}
		// Only domains that a feasible node lies in matter.
		for _, node := range nodes {
			if value, has := framework.Topology(node.Node, all[i].key); has {
				counts[i][value] = 0
			}
		}
		for _, node := range snapshot.Nodes {
			value, has := framework.Topology(node.Node, all[i].key)
			if _, relevant := counts[i][value]; has && relevant && all[i].includes(pod.Pod, required, node.Node) {
				counts[i][value] += all[i].count(node, pod.Pod.Namespace)
			}
		}
	}
	scores, ignored := make([]int64, len(nodes)), make([]bool, len(nodes))
	for n, node := range nodes {
		if requireAll && !hasAllKeys(node.Node, all) {
			ignored[n] = true
			continue
		}
		var sum float64
		for i := range all {
			if value, has := framework.Topology(node.Node, all[i].key); has {
				// More domains weigh more, lest hosts drown zones.
				weight := math.Log(float64(len(counts[i]) + 2))
				sum += float64(counts[i][value])*weight + float64(all[i].maxSkew-1)
			}
		}
		scores[n] = int64(math.Round(sum))
	}
	return fewerIsBetter(scores, ignored)
}

func fewerIsBetter(scores []int64, ignored []bool) []int64 {
	low, high := int64(math.MaxInt64), int64(0)
	for i, score := range scores {
		if !ignored[i] {
			low, high = min(low, score), max(high, score)
		}
	}
	for i, score := range scores {
		switch {
		case ignored[i]:
			scores[i] = 0
		case high == 0:
			scores[i] = framework.MaxScore
		default:
			scores[i] = framework.MaxScore * (high + low - score) / high
		}
	}
	return scores
}
