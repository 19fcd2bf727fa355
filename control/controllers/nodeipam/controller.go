// Package nodeipam gives every node its range of pod addresses:
// kube-controller-manager's node-ipam-controller.
//
// In flow nodes by informer; out flows spec.podCIDRs, once per node and never
// changed. Which ranges are free follows from the nodes alone, so nothing is kept
// that a crash could lose; what was just written is remembered until the informer
// shows it.
package nodeipam

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// Component is the controller's name in events, as upstream's.
const Component = "cidrAllocator"

// Pool is a cluster range that is cut into one block per node.
type Pool struct {
	Range netip.Prefix
	// NodeMask is the length of a node's prefix.
	NodeMask int
}

// Controller assigns pod ranges to nodes.
type Controller struct {
	client  kubernetes.Interface
	nodes   corelisters.NodeLister
	pools   []Pool
	avoid   []netip.Prefix
	sources []reconcile.Source
	// queue has one worker, which alone touches written and next.
	queue *reconcile.Queue[string]
	// written has what was assigned, by node, until the informer shows it.
	written map[string]assignment
	// next is where the search in each pool goes on, so that a range just freed is
	// not given away at once.
	next   []netip.Addr
	events record.EventRecorder
	logger *slog.Logger
}

// assignment is what was written into one node, and not into a later namesake.
type assignment struct {
	uid    types.UID
	ranges []netip.Prefix
}

// New returns a controller that takes blocks from the pools (one per address
// family) except where they overlap with the ranges to avoid. The caller starts
// the informers.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, pools []Pool, avoid []netip.Prefix, logger *slog.Logger) (*Controller, error) {
	for _, pool := range pools {
		if pool.NodeMask < pool.Range.Bits() || pool.NodeMask > pool.Range.Addr().BitLen() {
			return nil, fmt.Errorf("a node's mask of /%d does not fit the cluster range %s", pool.NodeMask, pool.Range)
		}
	}
	nodes := factory.Core().V1().Nodes()
	c := &Controller{
		client: client, nodes: nodes.Lister(), pools: pools, avoid: avoid,
		written: map[string]assignment{}, next: make([]netip.Addr, len(pools)), logger: logger,
	}
	c.queue = reconcile.NewQueue("nodeipam", 1, logger, c.reconcile)
	c.sources = []reconcile.Source{{Informer: nodes.Informer(), Handler: reconcile.Handler(c.changed,
		func(old, node *corev1.Node) {
			if len(old.Spec.PodCIDRs) != len(node.Spec.PodCIDRs) || old.UID != node.UID {
				c.changed(node)
			}
		}, c.changed)}}
	return c, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	recorder, stop := reconcile.StartEvents(c.client, Component)
	defer stop()
	c.events = recorder
	return reconcile.Run(ctx, c.sources, c.queue)
}

func (c *Controller) changed(node *corev1.Node) { c.queue.Add(node.Name) }

func (c *Controller) reconcile(ctx context.Context, name string) error {
	node, err := c.nodes.Get(name)
	if apierrors.IsNotFound(err) {
		delete(c.written, name)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read node: %w", err)
	}
	if len(node.Spec.PodCIDRs) > 0 || node.Spec.PodCIDR != "" {
		delete(c.written, name)
		return nil
	}
	if pending, was := c.written[name]; was && pending.uid == node.UID {
		return nil
	}
	used, err := c.used()
	if err != nil {
		return err
	}
	ranges := make([]netip.Prefix, len(c.pools))
	for i, pool := range c.pools {
		block, ok := free(pool, c.next[i], used)
		if !ok {
			c.tell(node, "CIDRNotAvailable")
			return fmt.Errorf("no range is left for node %s: all /%d blocks of %s are taken", name, pool.NodeMask, pool.Range)
		}
		ranges[i] = block
	}
	if err := c.write(ctx, node, ranges); err != nil {
		c.tell(node, "CIDRAssignmentFailed")
		return err
	}
	c.written[name] = assignment{node.UID, ranges}
	for i, block := range ranges {
		c.next[i] = after(block)
	}
	c.logger.Info("a node got its pod range", "node", name, "podCIDRs", ranges)
	return nil
}

// used returns every range that is taken.
func (c *Controller) used() ([]netip.Prefix, error) {
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	used := append([]netip.Prefix(nil), c.avoid...)
	for _, node := range nodes {
		for _, text := range node.Spec.PodCIDRs {
			block, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, fmt.Errorf("pod range of node %s: %w", node.Name, err)
			}
			used = append(used, block)
		}
	}
	for _, pending := range c.written {
		used = append(used, pending.ranges...)
	}
	return used, nil
}

// write sets the node's ranges; on a node that has changed since, or has some, it
// fails.
func (c *Controller) write(ctx context.Context, node *corev1.Node, ranges []netip.Prefix) error {
	texts := make([]string, len(ranges))
	for i, block := range ranges {
		texts[i] = block.String()
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": node.UID},
		"spec":     map[string]any{"podCIDR": texts[0], "podCIDRs": texts},
	})
	if err != nil {
		return fmt.Errorf("encode pod ranges: %w", err)
	}
	// Merging into ranges that are there already is refused: they are immutable.
	if _, err := c.client.CoreV1().Nodes().Patch(ctx, node.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("set pod ranges of node %s: %w", node.Name, err)
	}
	return nil
}

func (c *Controller) tell(node *corev1.Node, status string) {
	about := &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}
	c.events.Eventf(about, corev1.EventTypeNormal, status, "Node %s status is now: %s", node.Name, status)
}
