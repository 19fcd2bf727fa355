package garbagecollector

import (
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// object names one object: of which kind, where, and which of its namesakes.
type object struct {
	monitor         *monitor
	namespace, name string
	uid             types.UID
}

// graph has the edges from owners to their dependents. Objects that neither own
// nor are owned are not in it.
type graph struct {
	mu sync.RWMutex // guards dependents
	// dependents has for every owner who refers to it, and whether that blocks the
	// owner's deletion in the foreground.
	dependents map[types.UID]map[object]bool
}

func newGraph() *graph {
	return &graph{dependents: map[types.UID]map[object]bool{}}
}

// set replaces item's former references by its present ones.
func (g *graph) set(item object, former, present []metav1.OwnerReference) {
	if len(former) == 0 && len(present) == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, reference := range former {
		if edges := g.dependents[reference.UID]; edges != nil {
			delete(edges, item)
			if len(edges) == 0 {
				delete(g.dependents, reference.UID)
			}
		}
	}
	for _, reference := range present {
		edges := g.dependents[reference.UID]
		if edges == nil {
			edges = map[object]bool{}
			g.dependents[reference.UID] = edges
		}
		edges[item] = blocks(reference)
	}
}

// of returns who depends on owner.
func (g *graph) of(owner types.UID) []object {
	g.mu.RLock()
	defer g.mu.RUnlock()
	dependents := make([]object, 0, len(g.dependents[owner]))
	for item := range g.dependents[owner] {
		dependents = append(dependents, item)
	}
	return dependents
}

// blocked tells whether a dependent keeps owner from being deleted in the
// foreground.
func (g *graph) blocked(owner types.UID) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, blocking := range g.dependents[owner] {
		if blocking {
			return true
		}
	}
	return false
}

func blocks(reference metav1.OwnerReference) bool {
	return reference.BlockOwnerDeletion != nil && *reference.BlockOwnerDeletion
}

// remembered is how many owners are remembered to be gone.
const remembered = 500

// goneOwners remembers owners whose deletion was seen, so that the API need not be
// asked about the owner of each of their dependents.
type goneOwners struct {
	mu    sync.Mutex // guards both
	known map[types.UID]struct{}
	order []types.UID
}

func newGoneOwners() *goneOwners {
	return &goneOwners{known: map[types.UID]struct{}{}}
}

func (g *goneOwners) add(uid types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, known := g.known[uid]; known {
		return
	}
	if len(g.order) >= remembered {
		delete(g.known, g.order[0])
		g.order = slices.Delete(g.order, 0, 1)
	}
	g.known[uid] = struct{}{}
	g.order = append(g.order, uid)
}

func (g *goneOwners) has(uid types.UID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, known := g.known[uid]
	return known
}
