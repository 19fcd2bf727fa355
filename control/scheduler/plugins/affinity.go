package plugins

import (
	"k8s.io/apimachinery/pkg/labels"

	"github.com/skiff-run/skiff/control/scheduler/framework"
)

// hardAffinityWeight is what the required affinity of pods that already run
// counts for a pod that would satisfy it (Kubernetes' default).
const hardAffinityWeight = 1

// interPodAffinity places pods near to and far from other pods.
type interPodAffinity struct{}

func (interPodAffinity) Name() string  { return "InterPodAffinity" }
func (interPodAffinity) Weight() int64 { return 2 }
func (interPodAffinity) Events() framework.Event {
	return framework.NodeAdded | framework.NodeLabelsChanged | framework.AssignedPodAdded | framework.AssignedPodRemoved |
		framework.AssignedPodLabelsChanged | framework.NamespaceChanged
}

// domain is a topology key with one of its values: a host, a zone.
type domain struct{ key, value string }

func (interPodAffinity) Prepare(pod *framework.PodInfo, snapshot *framework.Snapshot) framework.Check {
	// Domains that pods which run already keep the new one away from.
	guarded := map[domain]bool{}
	ownLabels := snapshot.NamespaceLabels(pod.Pod.Namespace)
	for _, node := range snapshot.WithAffinity {
		for _, other := range node.PodsWithAffinity {
			for i := range other.RequiredAntiAffinity {
				term := &other.RequiredAntiAffinity[i]
				if value, has := framework.Topology(node.Node, term.TopologyKey); has && term.Matches(pod.Pod, ownLabels) {
					guarded[domain{term.TopologyKey, value}] = true
				}
			}
		}
	}
	if len(guarded) == 0 && len(pod.RequiredAffinity) == 0 && len(pod.RequiredAntiAffinity) == 0 {
		return nil
	}
	// Where pods are that the new one must be near to or far from. For
	// affinity only a pod that all terms speak of counts.
	near, far := map[domain]bool{}, map[domain]bool{}
	if len(pod.RequiredAffinity) > 0 || len(pod.RequiredAntiAffinity) > 0 {
		for _, node := range snapshot.Nodes {
			for _, other := range node.Pods {
				otherLabels := snapshot.NamespaceLabels(other.Pod.Namespace)
				if matchesAll(pod.RequiredAffinity, other, otherLabels) {
					mark(near, pod.RequiredAffinity, node)
				}
				for i := range pod.RequiredAntiAffinity {
					if pod.RequiredAntiAffinity[i].Matches(other.Pod, otherLabels) {
						mark(far, pod.RequiredAntiAffinity[i:i+1], node)
					}
				}
			}
		}
	}
	// The first of a group that wants to be together may go anywhere.
	first := len(near) == 0 && matchesAll(pod.RequiredAffinity, pod, ownLabels)

	return func(node *framework.NodeInfo) *framework.Rejection {
		for i := range pod.RequiredAffinity {
			key := pod.RequiredAffinity[i].TopologyKey
			value, has := framework.Topology(node.Node, key)
			if !has || !first && !near[domain{key, value}] {
				return rejectForGood("node(s) didn't match pod affinity rules")
			}
		}
		for i := range pod.RequiredAntiAffinity {
			key := pod.RequiredAntiAffinity[i].TopologyKey
			if value, has := framework.Topology(node.Node, key); has && far[domain{key, value}] {
				return reject("node(s) didn't match pod anti-affinity rules")
			}
		}
		for d := range guarded {
			if value, has := framework.Topology(node.Node, d.key); has && value == d.value {
				return reject("node(s) didn't satisfy existing pods anti-affinity rules")
			}
		}
		return nil
	}
}

func matchesAll(terms []framework.AffinityTerm, pod *framework.PodInfo, namespaceLabels labels.Set) bool {
	for i := range terms {
		if !terms[i].Matches(pod.Pod, namespaceLabels) {
			return false
		}
	}
	return len(terms) > 0
}

func mark(domains map[domain]bool, terms []framework.AffinityTerm, node *framework.NodeInfo) {
	for i := range terms {
		if value, has := framework.Topology(node.Node, terms[i].TopologyKey); has {
			domains[domain{terms[i].TopologyKey, value}] = true
		}
	}
}

// Score adds up the preferred terms of the new pod and, seen from the other
// side, those of the pods that run.
func (interPodAffinity) Score(pod *framework.PodInfo, snapshot *framework.Snapshot, nodes []*framework.NodeInfo) []int64 {
	ownTerms := len(pod.PreferredAffinity)+len(pod.PreferredAntiAffinity) > 0
	if !ownTerms && len(snapshot.WithAffinity) == 0 {
		return nil
	}
	sums := map[domain]int64{}
	add := func(term *framework.AffinityTerm, node *framework.NodeInfo, weight int64) {
		if value, has := framework.Topology(node.Node, term.TopologyKey); has {
			sums[domain{term.TopologyKey, value}] += weight
		}
	}
	if ownTerms {
		for _, node := range snapshot.Nodes {
			for _, other := range node.Pods {
				otherLabels := snapshot.NamespaceLabels(other.Pod.Namespace)
				for i := range pod.PreferredAffinity {
					if t := &pod.PreferredAffinity[i]; t.Matches(other.Pod, otherLabels) {
						add(&t.AffinityTerm, node, t.Weight)
					}
				}
				for i := range pod.PreferredAntiAffinity {
					if t := &pod.PreferredAntiAffinity[i]; t.Matches(other.Pod, otherLabels) {
						add(&t.AffinityTerm, node, -t.Weight)
					}
				}
			}
		}
	}
	ownLabels := snapshot.NamespaceLabels(pod.Pod.Namespace)
	for _, node := range snapshot.WithAffinity {
		for _, other := range node.PodsWithAffinity {
			for i := range other.RequiredAffinity {
				if t := &other.RequiredAffinity[i]; t.Matches(pod.Pod, ownLabels) {
					add(t, node, hardAffinityWeight)
				}
			}
			for i := range other.PreferredAffinity {
				if t := &other.PreferredAffinity[i]; t.Matches(pod.Pod, ownLabels) {
					add(&t.AffinityTerm, node, t.Weight)
				}
			}
			for i := range other.PreferredAntiAffinity {
				if t := &other.PreferredAntiAffinity[i]; t.Matches(pod.Pod, ownLabels) {
					add(&t.AffinityTerm, node, -t.Weight)
				}
			}
		}
	}
	if len(sums) == 0 {
		return nil
	}
	scores := make([]int64, len(nodes))
	for i, node := range nodes {
		for d, sum := range sums {
			if value, has := framework.Topology(node.Node, d.key); has && value == d.value {
				scores[i] += sum
			}
		}
	}
	return stretch(scores)
}

// stretch maps scores, which may be negative, to 0..MaxScore; nil when all are equal.
func stretch(scores []int64) []int64 {
	low, high := scores[0], scores[0]
	for _, score := range scores {
		low, high = min(low, score), max(high, score)
	}
	if low == high {
		return nil
	}
	for i := range scores {
		scores[i] = framework.MaxScore * (scores[i] - low) / (high - low)
	}
	return scores
}
