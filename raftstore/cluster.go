package raftstore

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/raft"
)

// ErrOtherCluster: the two members belong to different clusters, though one
// authority signed their certificates. A snapshot was restored, or a store
// recovered, beside the cluster it came from.
var ErrOtherCluster = errors.New("the member belongs to another cluster")

// clusterGate keeps members of different clusters apart. The cluster's id stands
// before the sender's address in every message of raft and every call.
type clusterGate struct {
	// own is this member's cluster, "" while it waits to be added to one.
	own func() string
	// adopt makes a cluster this member's. It is called when a leader speaks to a
	// member that waits to be added.
	adopt func(cluster string) error
}

// clusterSeparator ends the cluster's id, which has only hexadecimal digits.
const clusterSeparator = "/"

// mark puts the cluster before what is sent.
func (g *clusterGate) mark(address raft.ServerAddress) []byte {
	return []byte(g.own() + clusterSeparator + string(address))
}

// unmark takes the cluster off.
func unmark(b []byte) (cluster string, address raft.ServerAddress) {
	cluster, rest, found := strings.Cut(string(b), clusterSeparator)
	if !found {
		return "", raft.ServerAddress(b)
	}
	return cluster, raft.ServerAddress(rest)
}

// refuse says why a message of raft must not reach it, nil if it may.
func (g *clusterGate) refuse(rpc raft.RPC) error {
	headed, ok := rpc.Command.(raft.WithRPCHeader)
	if !ok {
		return fmt.Errorf("a message of type %T without a header", rpc.Command)
	}
	header := headed.GetRPCHeader()
	cluster, _ := unmark(header.Addr)
	own := g.own()
	switch rpc.Command.(type) {
	case *raft.AppendEntriesRequest, *raft.InstallSnapshotRequest: // a leader's words
		if own == "" && cluster != "" {
			if err := g.adopt(cluster); err != nil {
				return err
			}
			own = cluster
		}
	}
	return sameCluster(own, cluster, string(header.ID))
}

func sameCluster(own, theirs, member string) error {
	switch {
	case own == "":
		return errors.New("this member waits to be added to a cluster")
	case own != theirs:
		return fmt.Errorf("%w: %q is of cluster %s, this is cluster %s", ErrOtherCluster, member, theirs, own)
	}
	return nil
}

// turnAway answers a refused message.
func turnAway(rpc raft.RPC, reason error) {
	drain(rpc)
	rpc.Respond(nil, reason)
}

// answerUnread answers a message whose snapshot is not wanted.
func answerUnread(rpc raft.RPC, answer any) {
	drain(rpc)
	rpc.Respond(answer, nil)
}

// drain reads a snapshot's data from the connection, so that the next message
// can be read.
func drain(rpc raft.RPC) {
	if rpc.Reader != nil {
		_, _ = io.Copy(io.Discard, rpc.Reader) // if it fails the connection is gone anyway
	}
}

// ClusterID names the cluster this member belongs to, "" while it waits to be
// added to one. It is made when a cluster is founded, restored or recovered.
func (s *Store) ClusterID() string { return *s.cluster.Load() }

// adopt makes a cluster this member's for ever.
func (s *Store) adopt(cluster string) error {
	s.adopting.Lock()
	defer s.adopting.Unlock()
	if own := s.ClusterID(); own != "" {
		return nil
	}
	id := s.id
	id.ClusterID = cluster
	if err := id.keep(s.options.fs(), s.options.Dir); err != nil {
		return s.guard.Fail(err)
	}
	s.cluster.Store(&cluster)
	s.log.Info("added to a cluster", "cluster", cluster)
	return nil
}
