// Package cached is storage.Interface with each object decoded once: in front
// of package raw it keeps one decoded, immutable object per key, which reads,
// watches and the informers of the same process share.
//
// It holds no second copy of the state. What exists, in which order and at
// which revision is always read from raftstore; the cache only answers "what
// does this version look like decoded". So no read can be stale because of it,
// and losing all of it costs nothing but time. See DESIGN.md.
//
// What flows in are versions and events of raftstore, what flows out are
// objects that nobody may change, and watch events that are encoded once per
// format. It knows no resource by name.
package cached
