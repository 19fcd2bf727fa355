package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/control/scheduler/framework"
	"github.com/skiff-run/skiff/control/scheduler/plugins"
)

// decider finds a node for one pod on a snapshot: a pure function but for the
// turn it takes through the nodes and the dice it throws among equals.
type decider struct {
	filters []framework.Filter
	scores  []framework.Score
	start   int
}

func newDecider(defaultSelector func(*corev1.Pod) labels.Selector, volumes *plugins.Volumes) *decider {
	return &decider{filters: plugins.Filters(volumes), scores: plugins.Scores(defaultSelector)}
}

// preparedCheck is a filter made ready for one pod.
type preparedCheck struct {
	filter framework.Filter
	check  framework.Check
}

func (d *decider) prepare(pod *framework.PodInfo, snapshot *framework.Snapshot) []preparedCheck {
	var checks []preparedCheck
	for _, filter := range d.filters {
		if check := filter.Prepare(pod, snapshot); check != nil {
			checks = append(checks, preparedCheck{filter, check})
		}
	}
	return checks
}

// diagnosis is why a pod fits nowhere.
type diagnosis struct {
	nodes      int
	rejections map[string]*framework.Rejection // by node
	helpedBy   framework.Event
}

// decide returns the best node for the pod, or the reasons why there is none.
// nominated are pods that wait for room on nodes: a pod may not take the room
// that one of at least its own priority waits for.
func (d *decider) decide(pod *framework.PodInfo, snapshot *framework.Snapshot, nominated map[string][]*framework.PodInfo) (string, *diagnosis) {
	why := &diagnosis{nodes: len(snapshot.Nodes), rejections: map[string]*framework.Rejection{}, helpedBy: framework.NodeAdded}
	checks := d.prepare(pod, snapshot)
	enough := feasibleEnough(len(snapshot.Nodes))
	var feasible []*framework.NodeInfo
	for i := range snapshot.Nodes {
		node := snapshot.Nodes[(d.start+i)%len(snapshot.Nodes)]
		if rejection := d.judge(pod, node, snapshot, checks, nominated[node.Node.Name], why); rejection != nil {
			why.rejections[node.Node.Name] = rejection
			continue
		}
		if feasible = append(feasible, node); len(feasible) >= enough {
			d.start = (d.start + i + 1) % len(snapshot.Nodes)
			break
		}
	}
	switch len(feasible) {
	case 0:
		return "", why
	case 1:
		return feasible[0].Node.Name, nil
	}
	return d.best(pod, snapshot, feasible), nil
}

// judge runs the checks on a node, and on the node as it will be with the pods
// that wait for room on it: the pod must fit both.
func (d *decider) judge(pod *framework.PodInfo, node *framework.NodeInfo, snapshot *framework.Snapshot, checks []preparedCheck, nominated []*framework.PodInfo, why *diagnosis) *framework.Rejection {
	crowded := node
	for _, other := range nominated {
		if other.Pod.UID != pod.Pod.UID && other.Priority() >= pod.Priority() {
			if crowded == node {
				crowded = node.Clone()
			}
			crowded.AddPod(other)
		}
	}
	if crowded != node {
		if rejection := firstRejection(d.prepare(pod, snapshot.With(crowded)), crowded, why); rejection != nil {
			return rejection
		}
	}
	return firstRejection(checks, node, why)
}

func firstRejection(checks []preparedCheck, node *framework.NodeInfo, why *diagnosis) *framework.Rejection {
	for _, prepared := range checks {
		if rejection := prepared.check(node); rejection != nil {
			if why != nil {
				why.helpedBy |= prepared.filter.Events()
			}
			return rejection
		}
	}
	return nil
}

// best returns the node with the highest weighted sum of scores, one of the
// best at random.
func (d *decider) best(pod *framework.PodInfo, snapshot *framework.Snapshot, nodes []*framework.NodeInfo) string {
	sums := make([]int64, len(nodes))
	for _, score := range d.scores {
		for i, value := range score.Score(pod, snapshot, nodes) {
			sums[i] += value * score.Weight()
		}
	}
	winner, ties := 0, 1
	for i := 1; i < len(sums); i++ {
		switch {
		case sums[i] > sums[winner]:
			winner, ties = i, 1
		case sums[i] == sums[winner]:
			if ties++; rand.IntN(ties) == 0 {
				winner = i
			}
		}
	}
	return nodes[winner].Node.Name
}

// feasibleEnough is how many fitting nodes are worth scoring: all of 100, then
// a share that shrinks from half to a twentieth of large clusters
// (kube-scheduler's adaptive percentageOfNodesToScore).
func feasibleEnough(nodes int) int {
	const least = 100
	if nodes <= least {
		return max(nodes, 1)
	}
	percentage := max(50-nodes/125, 5)
	return max(nodes*percentage/100, least)
}

// message is the diagnosis in kube-scheduler's words; preemption is what trying
// to make room came to, empty when it was not tried.
func (w *diagnosis) message(preemption string) string {
	if w.nodes == 0 {
		return "no nodes available to schedule pods"
	}
	text := histogram(w.nodes, w.rejections)
	if preemption != "" {
		text += " preemption: " + preemption
	}
	return text
}

// histogram counts reasons over nodes: "0/3 nodes are available: 1 node(s) were
// unschedulable, 2 Insufficient cpu."
func histogram(nodes int, rejections map[string]*framework.Rejection) string {
	counts := map[string]int{}
	var parts []string
	for _, rejection := range rejections {
		for _, reason := range rejection.Reasons {
			if rejection.Everywhere {
				if !slices.Contains(parts, reason) {
					parts = append(parts, reason)
				}
				continue
			}
			counts[reason]++
		}
	}
	for reason, count := range counts {
		parts = append(parts, fmt.Sprintf("%d %s", count, reason))
	}
	slices.Sort(parts)
	text := fmt.Sprintf("0/%d nodes are available:", nodes)
	if len(parts) > 0 {
		text += " " + strings.Join(parts, ", ") + "."
	}
	return text
}
