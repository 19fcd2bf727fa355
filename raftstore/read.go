package raftstore

import "context"

// Reads see the state applied by this member, without locks. A consistent read
// calls ReadIndex first.

// Revision is the newest revision applied here.
func (s *Store) Revision() int64 { return s.state.View().Revision() }

// CompactRevision is the oldest readable revision, 0 until the first
// compaction.
func (s *Store) CompactRevision() int64 { return s.state.View().CompactRevision() }

// WaitRevision blocks until the revision is applied here.
func (s *Store) WaitRevision(ctx context.Context, rev int64) error {
	return s.state.WaitRevision(ctx, rev)
}

// Get returns the key at a revision (0 for the newest) and the revision of the
// store which answered. A missing key is a nil KeyValue and no error.
func (s *Store) Get(key string, rev int64) (*KeyValue, int64, error) {
	v := s.state.View()
	kv, err := v.Get(key, rev)
	return kv, v.Revision(), err
}

// Range returns up to limit keys (0: all) with the prefix which are not before
// start, in key order, at a revision (0 for the newest).
func (s *Store) Range(prefix, start string, limit int, rev int64) (RangeResult, error) {
	return s.state.View().Range(prefix, start, limit, rev)
}

// Count is the number of live keys with the prefix.
func (s *Store) Count(prefix string) int64 { return s.state.View().Count(prefix) }

// Stats is the number of live keys with the prefix and their size in bytes,
// keys included.
func (s *Store) Stats(prefix string) (count, bytes int64) { return s.state.View().Stats(prefix) }

// Watch delivers the events of a prefix with revision > after, in revision
// order and without gaps. Next returns whenever the revision of the store
// moves, also when nothing concerned the prefix, so one watcher over a wide
// prefix that feeds many consumers is cheaper than many watchers.
func (s *Store) Watch(prefix string, after int64) (*Watcher, error) {
	return s.state.Watch(prefix, after)
}
