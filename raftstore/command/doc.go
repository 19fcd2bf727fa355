// Package command is the language of the replicated log: what a member asks
// the state machine to do and what it is answered.
//
// One log entry carries one Batch: the commands of many callers which waited
// for the same fsync. Every command has an identity (origin, sequence), so that
// a batch which was proposed again because its fate was unknown is executed
// once. The encoding is a few bytes around key and value and is checked on
// decoding; it knows nothing of raft, disks or clocks.
package command
