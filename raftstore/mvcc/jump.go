package mvcc

// Jump moves the revision forward by n without a mutation and forgets all
// history. Whoever watches, or pages through a list, from a revision before
// the jump is told ErrCompacted and starts over: that is for stores whose past
// is no longer the one clients have seen.
func (s *State) Jump(n int64) {
	s.revision += n
	s.compacted = s.revision
	s.history = history{base: s.revision + 1}
	s.historyBytes = 0
	s.roots = nil
}
