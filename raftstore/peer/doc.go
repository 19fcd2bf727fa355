// Package peer connects the members of a store over TCP: it is raftstore's
// Network. Both ends of each connection prove by certificate which member they
// are; one port carries raft's messages and the store's calls, told apart by
// the protocol negotiated in the handshake.
//
// In flow connections and requests of other members, out flow raft's messages,
// calls and their answers. The package must not know what the requests mean.
package peer
