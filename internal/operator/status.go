package operator

import "time"

// Status is a control machine's view of itself and of the others.
type Status struct {
	MemberID string    `json:"memberID"`
	NodeName string    `json:"nodeName,omitempty"`
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Time     time.Time `json:"time"`
	// Address is host:port of this machine's API server.
	Address string `json:"address"`
	// ControlAddresses are host:port of every API server this one knows of.
	ControlAddresses []string `json:"controlAddresses"`

	Store Store `json:"store"`
	// Checks are what this machine checks of itself; "ok" or what is wrong.
	Checks map[string]string `json:"checks"`
	// Certificates of this machine, soonest end first.
	Certificates []Certificate `json:"certificates"`
}

// Store is the state of one member of the store.
type Store struct {
	Leader          bool   `json:"leader"`
	LeaderID        string `json:"leaderID,omitempty"`
	Voters          int    `json:"voters"`
	Term            uint64 `json:"term"`
	Revision        int64  `json:"revision"`
	CompactRevision int64  `json:"compactRevision"`
	Keys            int64  `json:"keys"`
	Bytes           int64  `json:"bytes"`
	Problem         string `json:"problem,omitempty"`
}

// Certificate is a certificate in use and its end.
type Certificate struct {
	Name     string    `json:"name"`
	NotAfter time.Time `json:"notAfter"`
	// Problem is empty for a certificate in order.
	Problem string `json:"problem,omitempty"`
}
