// Package raftstore is etcd's role in Skiff: a replicated multi-version store
// of keys and values on hashicorp/raft.
//
// In flow Put, Delete and Compact requests, which are written to the log of a
// majority and fsynced before they are answered; out flow reads of the applied
// state at any revision still kept, and watches from such a revision. One
// revision counter orders all mutations of the store: it is dense and is what
// Kubernetes calls resourceVersion.
//
// The package knows bytes. It must not know Kubernetes, and no type of the
// raft library leaves it. DESIGN.md tells how it is built and why.
package raftstore
