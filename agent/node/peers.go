package node

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Peer is another node, as far as routes to its pods need it.
type Peer struct {
	Name     string
	Address  netip.Addr
	PodCIDRs []netip.Prefix
}

// Peers follows all nodes: this one for its pod range, the others for routes.
// It is the store of a reflector and keeps three fields of each node.
type Peers struct {
	client kubernetes.Interface
	self   string
	// own gets this node's object, nil when it is gone, and whether it comes from a
	// list. changed is called when peers or ranges changed.
	own     func(node *v1.Node, listed bool)
	changed func()

	// mu guards peers, ranges and listed.
	mu     sync.Mutex
	peers  map[string]Peer
	ranges []netip.Prefix
	listed bool // all nodes were seen once
}

// NewPeers returns a follower; self is this node's name.
func NewPeers(client kubernetes.Interface, self string, own func(node *v1.Node, listed bool), changed func()) *Peers {
	return &Peers{client: client, self: self, own: own, changed: changed, peers: map[string]Peer{}}
}

// Run follows the nodes until ctx ends.
func (p *Peers) Run(ctx context.Context) {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return p.client.CoreV1().Nodes().List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return p.client.CoreV1().Nodes().Watch(ctx, o)
		},
	}
	cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, p.client), &v1.Node{}, p, cache.ReflectorOptions{Name: "nodes"}).RunWithContext(ctx)
}

// PodCIDRs are the ranges of this node's pods.
func (p *Peers) PodCIDRs() []netip.Prefix {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ranges)
}

// List returns the other nodes, and whether these are all: before the first list
// has come, nothing may be taken away because it is not here.
func (p *Peers) List() ([]Peer, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]Peer, 0, len(p.peers))
	for _, peer := range p.peers {
		list = append(list, peer)
	}
	return list, p.listed
}

// Add, Update, Delete, Replace and Resync make Peers a cache.ReflectorStore.
func (p *Peers) Add(object any) error { return p.Update(object) }
func (p *Peers) Resync() error        { return nil }

// Update takes over one node.
func (p *Peers) Update(object any) error {
	if node, ok := object.(*v1.Node); ok && p.take(node, false) {
		p.changed()
	}
	return nil
}

// Delete forgets one node.
func (p *Peers) Delete(object any) error {
	node, ok := object.(*v1.Node)
	if !ok {
		return nil
	}
	if node.Name == p.self {
		p.own(nil, false)
		return nil
	}
	p.mu.Lock()
	delete(p.peers, node.Name)
	p.mu.Unlock()
	p.changed()
	return nil
}

// Replace takes over all nodes, after a list.
func (p *Peers) Replace(objects []any, _ string) error {
	present := map[string]bool{}
	for _, o := range objects {
		if node, ok := o.(*v1.Node); ok {
			present[node.Name] = true
			p.take(node, true)
		}
	}
	if !present[p.self] {
		p.own(nil, true)
	}
	p.mu.Lock()
	for name := range p.peers {
		if !present[name] {
			delete(p.peers, name)
		}
	}
	p.listed = true
	p.mu.Unlock()
	p.changed()
	return nil
}

// take notes one node and reports whether anything of interest changed.
func (p *Peers) take(node *v1.Node, listed bool) bool {
	var ranges []netip.Prefix
	texts := node.Spec.PodCIDRs
	if len(texts) == 0 && node.Spec.PodCIDR != "" {
		texts = []string{node.Spec.PodCIDR}
	}
	for _, text := range texts {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			ranges = append(ranges, prefix)
		}
	}
	if node.Name == p.self {
		node.ManagedFields = nil
		p.own(node, listed)
		p.mu.Lock()
		defer p.mu.Unlock()
		changed := !slices.Equal(p.ranges, ranges)
		p.ranges = ranges
		return changed
	}
	next := Peer{Name: node.Name, PodCIDRs: ranges}
	for _, a := range node.Status.Addresses {
		if a.Type == v1.NodeInternalIP && !next.Address.IsValid() {
			if address, err := netip.ParseAddr(a.Address); err == nil {
				next.Address = address
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old, known := p.peers[node.Name]
	p.peers[node.Name] = next
	return !known || old.Address != next.Address || !slices.Equal(old.PodCIDRs, next.PodCIDRs)
}
