package framework

// Rejection says why a pod cannot run on a node.
type Rejection struct {
	// Reasons in Kubernetes' words, counted over nodes in the event.
	Reasons []string
	// Unresolvable means that removing other pods from the node would not help.
	Unresolvable bool
	// Everywhere means that the reason lies in the pod alone and holds for all nodes.
	Everywhere bool
}

// Check judges one node for the pod it was prepared for; nil means it fits. It
// may be called from several goroutines.
type Check func(node *NodeInfo) *Rejection

// Filter is a rule that a node must pass.
type Filter interface {
	// Name is the plugin's name in Kubernetes.
	Name() string
	// Prepare does once per pod what does not depend on the node. A nil Check
	// means that the rule does not concern the pod.
	Prepare(pod *PodInfo, snapshot *Snapshot) Check
	// Events are what may make a pod fit that this filter rejected.
	Events() Event
}

// Score ranks the nodes that passed all filters.
type Score interface {
	Name() string
	// Weight multiplies the score, 0 to MaxScore, in the sum.
	Weight() int64
	// Score returns one figure for each node, or nil when it has no preference.
	Score(pod *PodInfo, snapshot *Snapshot, nodes []*NodeInfo) []int64
}

// MaxScore is the best a Score can give.
const MaxScore = 100

// Event is a set of things that happen in a cluster and may make a pod fit.
type Event uint32

// The events, as the queue is told of them.
const (
	NodeAdded Event = 1 << iota
	NodeAllocatableChanged
	NodeLabelsChanged
	NodeTaintsChanged
	AssignedPodAdded
	AssignedPodRemoved
	AssignedPodLabelsChanged
	NamespaceChanged
	// StorageChanged is a change of claims, volumes, storage classes or drivers.
	StorageChanged
)

// Normalize maps raw scores linearly to 0..MaxScore, reversed when less is better.
func Normalize(scores []int64, reverse bool) []int64 {
	var highest int64
	for _, score := range scores {
		highest = max(highest, score)
	}
	for i, score := range scores {
		if highest == 0 {
			if reverse {
				scores[i] = MaxScore
			}
			continue
		}
		scores[i] = score * MaxScore / highest
		if reverse {
			scores[i] = MaxScore - scores[i]
		}
	}
	return scores
}
