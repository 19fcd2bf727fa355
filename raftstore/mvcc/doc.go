// Package mvcc is the pure heart of the store: keys with versions, one dense
// revision counter, a bounded history and watches over it.
//
// State is changed by exactly one goroutine (the replicated state machine) by
// Put, Delete, Expire and Compact, and becomes visible to readers as a whole
// by Publish. Everything a reader touches hangs off an immutable View behind
// an atomic pointer, so reads take no lock and never wait for writers.
//
// The package knows no clock, no disk, no network and no consensus: two States
// which were given the same calls hold the same bytes, and that is what makes
// replication correct.
package mvcc
