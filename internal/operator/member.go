package operator

// Member is one member of the store as the leader sees it or, when there is
// none, as the one that was asked does.
type Member struct {
	ID string `json:"id"`
	// Address is host:port of its peer port.
	Address string `json:"address"`
	// Voter counts in majorities; a member is none while it catches up.
	Voter  bool `json:"voter"`
	Leader bool `json:"leader"`
	// Reachable: it answered just now. If not, what follows is unknown.
	Reachable bool `json:"reachable"`
	// Revision is the newest it has applied, Lag how many it is behind the
	// newest of all.
	Revision int64 `json:"revision"`
	Lag      int64 `json:"lag"`
	// Problem is what it, or who cannot reach it, complains of.
	Problem string `json:"problem,omitempty"`
}

// MemberList are all members of the store.
type MemberList struct {
	Members []Member `json:"members"`
}

// MemberRequest asks to add a member, which does not vote before it has caught up.
type MemberRequest struct {
	ID      string `json:"id"`
	Address string `json:"address"`
}

// TransferRequest asks for another leader.
type TransferRequest struct {
	// ID of the voter that shall lead; empty for the best one.
	ID string `json:"id,omitempty"`
}
