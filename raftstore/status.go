package raftstore

// Status is what a person or a metrics scraper wants to know about a member.
type Status struct {
	MemberID        string
	Leader          bool
	LeaderID        string
	Revision        int64
	CompactRevision int64
	Keys            int64
	Bytes           int64
	HistoryEvents   int64
	HistoryBytes    int64
}

// Status describes the member now.
func (s *Store) Status() Status {
	v := s.state.View()
	return Status{
		Leader:          s.IsLeader(),
		Revision:        v.Revision(),
		CompactRevision: v.CompactRevision(),
		Keys:            v.Keys(),
		Bytes:           v.Bytes(),
		HistoryEvents:   v.HistoryLen(),
		HistoryBytes:    v.HistoryBytes(),
	}
}
