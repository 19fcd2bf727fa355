package framework

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Snapshot is the cluster as one decision sees it: immutable.
type Snapshot struct {
	// Nodes in order of name; only nodes that exist.
	Nodes []*NodeInfo
	// WithAffinity are the nodes that run pods with affinity to others.
	WithAffinity []*NodeInfo
	// NamespaceLabels returns the labels of a namespace.
	NamespaceLabels func(namespace string) labels.Set
}

// NewSnapshot indexes nodes, which are in order of name and stay untouched.
func NewSnapshot(nodes []*NodeInfo, namespaceLabels func(string) labels.Set) *Snapshot {
	s := &Snapshot{Nodes: nodes, NamespaceLabels: namespaceLabels}
	for _, node := range nodes {
		if len(node.PodsWithAffinity) > 0 {
			s.WithAffinity = append(s.WithAffinity, node)
		}
	}
	return s
}

// With returns the snapshot with one node replaced, for asking "what if".
func (s *Snapshot) With(replacement *NodeInfo) *Snapshot {
	nodes := slices.Clone(s.Nodes)
	for i, node := range nodes {
		if node.Node.Name == replacement.Node.Name {
			nodes[i] = replacement
		}
	}
	return NewSnapshot(nodes, s.NamespaceLabels)
}

// Topology returns the value of a topology key on a node, and whether it has one.
func Topology(node *corev1.Node, key string) (string, bool) {
	value, found := node.Labels[key]
	return value, found
}
