// Package disk keeps what a member must not forget: the replicated log, the
// vote, and snapshots of the state.
//
// It wraps raft-wal and closes what raft and raft-wal leave open: every record
// carries a checksum that is verified on each read, a high-water mark beside
// the log notices when records which were once acknowledged are gone, the vote
// is one atomic write, a write error or a hanging disk is reported as fatal
// instead of being survived. Damage is always an error which names the file;
// it never makes the log silently shorter.
//
// The package knows raft's storage interfaces and files. It must not know what
// the records mean.
package disk
