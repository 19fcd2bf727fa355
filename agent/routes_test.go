package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/agent/node"
)

// routedHost counts how often routes were set.
type routedHost struct {
	Host
	set   int
	peers []node.Peer
}

func (h *routedHost) SetPodCIDRs(context.Context, []netip.Prefix) error { return nil }

func (h *routedHost) SetPeers(_ context.Context, peers []node.Peer) error {
	h.set++
	h.peers = peers
	return nil
}

// TestRoutesOfAFormerRunStayUntilTheNodesAreKnown: pods and services use them
// while the agent is restarted.
func TestRoutesOfAFormerRunStayUntilTheNodesAreKnown(t *testing.T) {
	host := &routedHost{}
	r := newRoutes(host, slog.New(slog.DiscardHandler), func() {})
	r.peers = node.NewPeers(nil, "self", func(*v1.Node, bool) {}, func() {})
	var current []netip.Prefix
	if err := r.apply(t.Context(), &current); err != nil || host.set != 0 {
		t.Fatalf("routes were set %d times before the nodes are known: %v", host.set, err)
	}
	other := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "other"}}
	other.Spec.PodCIDRs = []string{"10.244.1.0/24"}
	other.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: "192.0.2.2"}}
	if err := r.peers.Replace([]any{other}, "1"); err != nil {
		t.Fatal(err)
	}
	if err := r.apply(t.Context(), &current); err != nil || host.set != 1 || len(host.peers) != 1 || host.peers[0].Name != "other" {
		t.Errorf("routes were set %d times, to %+v: %v", host.set, host.peers, err)
	}
}
