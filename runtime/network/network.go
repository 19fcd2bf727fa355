// Package network connects the pods of one machine.
package network

import (
	"log/slog"
	"net/netip"
)

// Options configures the pod network of one machine.
type Options struct {
	// Bridge is the name of the bridge, "skiff0" when empty.
	Bridge string
	// MTU of bridge and pods' links; that of the default route's link when zero.
	MTU int
	// ClusterCIDRs are the ranges of all pods: traffic to them is not masqueraded.
	ClusterCIDRs []netip.Prefix
	// StateDir holds the address leases.
	StateDir string
	// Table is the name of the nftables table, "skiff-pods" when empty.
	Table string
	// Logger receives the decisions.
	Logger *slog.Logger
}

// Peer is another machine of the cluster.
type Peer struct {
	// Name of the node, for messages.
	Name string
	// Address of the machine through which its pods are reached.
	Address netip.Addr
	// PodCIDRs are the ranges of its pods.
	PodCIDRs []netip.Prefix
}
