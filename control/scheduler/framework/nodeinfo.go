package framework

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// NodeInfo is a node with the pods that are, or are about to be, on it. A
// NodeInfo in a Snapshot is immutable.
type NodeInfo struct {
	Node *corev1.Node
	// Pods by UID, and those among them with affinity to others.
	Pods             map[types.UID]*PodInfo
	PodsWithAffinity map[types.UID]*PodInfo

	Allocatable      Resource
	AllowedPods      int
	Requested        Resource
	ScoringRequested Resource
	// ImageSizes in bytes by every name the node reports for the image.
	ImageSizes map[string]int64
}

// NewNodeInfo returns a node without pods; the node may be nil until it is known.
func NewNodeInfo(node *corev1.Node) *NodeInfo {
	n := &NodeInfo{Pods: map[types.UID]*PodInfo{}, PodsWithAffinity: map[types.UID]*PodInfo{}}
	n.SetNode(node)
	return n
}

// SetNode replaces the node object.
func (n *NodeInfo) SetNode(node *corev1.Node) {
	n.Node, n.Allocatable, n.AllowedPods, n.ImageSizes = node, Resource{}, 0, nil
	if node == nil {
		return
	}
	n.Allocatable = NewResource(node.Status.Allocatable)
	n.AllowedPods = int(node.Status.Allocatable.Pods().Value())
	n.ImageSizes = make(map[string]int64, 2*len(node.Status.Images))
	for _, image := range node.Status.Images {
		for _, name := range image.Names {
			n.ImageSizes[name] = image.SizeBytes
		}
	}
}

// AddPod accounts for a pod; a pod that is already there is replaced.
func (n *NodeInfo) AddPod(pod *PodInfo) {
	n.RemovePod(pod.Pod.UID)
	n.Pods[pod.Pod.UID] = pod
	if pod.HasAffinity() {
		n.PodsWithAffinity[pod.Pod.UID] = pod
	}
	n.Requested.add(pod.Requests, 1)
	n.ScoringRequested.add(pod.ScoringRequests, 1)
}

// RemovePod undoes AddPod; a pod that is not there is fine.
func (n *NodeInfo) RemovePod(uid types.UID) {
	pod, known := n.Pods[uid]
	if !known {
		return
	}
	delete(n.Pods, uid)
	delete(n.PodsWithAffinity, uid)
	n.Requested.add(pod.Requests, -1)
	n.ScoringRequested.add(pod.ScoringRequests, -1)
}

// Clone returns a copy whose pods can be changed on their own.
func (n *NodeInfo) Clone() *NodeInfo {
	c := *n
	c.Pods = make(map[types.UID]*PodInfo, len(n.Pods))
	for uid, pod := range n.Pods {
		c.Pods[uid] = pod
	}
	c.PodsWithAffinity = make(map[types.UID]*PodInfo, len(n.PodsWithAffinity))
	for uid, pod := range n.PodsWithAffinity {
		c.PodsWithAffinity[uid] = pod
	}
	c.Requested, c.ScoringRequested = n.Requested.clone(), n.ScoringRequested.clone()
	return &c
}
