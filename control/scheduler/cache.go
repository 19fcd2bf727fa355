package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-run/skiff/control/scheduler/framework"
)

// clusterCache is what the scheduler knows of nodes and the pods on them, the ones it
// has just decided included. Safe for concurrent use.
type clusterCache struct {
	mu    sync.Mutex
	nodes map[string]*framework.NodeInfo
	// pods says on which node a pod is accounted for, and assumed which of them
	// the API has not confirmed yet.
	pods    map[types.UID]string
	assumed map[types.UID]bool
	// nominated are pods that preempted others on a node and wait for the room.
	nominated map[types.UID]nomination

	// What the last snapshot was made of: changed nodes are copied again.
	published map[string]*framework.NodeInfo
	order     []*framework.NodeInfo
	changed   map[string]bool
}

type nomination struct {
	node string
	pod  *framework.PodInfo
}

func newCache() *clusterCache {
	return &clusterCache{
		nodes: map[string]*framework.NodeInfo{}, pods: map[types.UID]string{}, assumed: map[types.UID]bool{},
		nominated: map[types.UID]nomination{}, published: map[string]*framework.NodeInfo{}, changed: map[string]bool{},
	}
}

// node returns the entry, making one for a node that is not known yet: pods may
// be heard of before their node.
func (c *clusterCache) node(name string) *framework.NodeInfo {
	info, known := c.nodes[name]
	if !known {
		info = framework.NewNodeInfo(nil)
		c.nodes[name] = info
	}
	c.changed[name] = true
	return info
}

func (c *clusterCache) setNode(node *corev1.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.node(node.Name).SetNode(node)
}

func (c *clusterCache) removeNode(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info := c.node(name)
	info.SetNode(nil)
	c.dropEmpty(name)
}

func (c *clusterCache) dropEmpty(name string) {
	if info := c.nodes[name]; info != nil && info.Node == nil && len(info.Pods) == 0 {
		delete(c.nodes, name)
	}
}

// setPod records what the API says of a pod that has a node.
func (c *clusterCache) setPod(pod *framework.PodInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.assumed, pod.Pod.UID)
	delete(c.nominated, pod.Pod.UID)
	c.place(pod, pod.Pod.Spec.NodeName)
}

// assume records a decision before the API knows it.
func (c *clusterCache) assume(pod *framework.PodInfo, node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.pods[pod.Pod.UID]; known {
		return
	}
	c.assumed[pod.Pod.UID] = true
	delete(c.nominated, pod.Pod.UID)
	c.place(pod, node)
}

// forget takes a decision back that the API did not accept.
func (c *clusterCache) forget(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.assumed[uid] {
		c.unplace(uid)
	}
}

func (c *clusterCache) removePod(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.nominated, uid)
	c.unplace(uid)
}

func (c *clusterCache) place(pod *framework.PodInfo, node string) {
	uid := pod.Pod.UID
	if before, known := c.pods[uid]; known && before != node {
		c.unplace(uid)
	}
	c.pods[uid] = node
	c.node(node).AddPod(pod)
}

func (c *clusterCache) unplace(uid types.UID) {
	node, known := c.pods[uid]
	if !known {
		return
	}
	delete(c.pods, uid)
	delete(c.assumed, uid)
	c.node(node).RemovePod(uid)
	c.dropEmpty(node)
}

func (c *clusterCache) nominate(pod *framework.PodInfo, node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if node == "" {
		delete(c.nominated, pod.Pod.UID)
		return
	}
	c.nominated[pod.Pod.UID] = nomination{node: node, pod: pod}
}

// nominatedTo returns the pods that wait for room on nodes, by node.
func (c *clusterCache) nominatedTo() map[string][]*framework.PodInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.nominated) == 0 {
		return nil
	}
	byNode := map[string][]*framework.PodInfo{}
	for _, n := range c.nominated {
		byNode[n.node] = append(byNode[n.node], n.pod)
	}
	return byNode
}

// snapshot returns the cluster as it is now, copying only the nodes that
// changed since the last one.
func (c *clusterCache) snapshot(namespaceLabels func(string) labels.Set) *framework.Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.changed) > 0 {
		reorder := false
		for name := range c.changed {
			info, known := c.nodes[name]
			if !known || info.Node == nil {
				if _, had := c.published[name]; had {
					delete(c.published, name)
					reorder = true
				}
				continue
			}
			if _, had := c.published[name]; !had {
				reorder = true
			}
			c.published[name] = info.Clone()
		}
		if reorder {
			c.order = slices.SortedFunc(maps.Values(c.published), func(a, b *framework.NodeInfo) int {
				return cmp.Compare(a.Node.Name, b.Node.Name)
			})
		} else {
			c.order = slices.Clone(c.order)
			for i, old := range c.order {
				if c.changed[old.Node.Name] {
					c.order[i] = c.published[old.Node.Name]
				}
			}
		}
		clear(c.changed)
	}
	return framework.NewSnapshot(c.order, namespaceLabels)
}
