package check

import "sync"

// Agreement checks while a cluster runs what its members must never disagree
// on. Violations are gathered; it is safe for concurrent use.
type Agreement struct {
	mu        sync.Mutex // guards all below
	wrong     violations
	leaders   map[uint64]string
	entries   map[uint64]entry
	states    map[uint64]entry
	revisions map[string]int64
	answered  int64
	compacted int64
}

type entry struct {
	member string
	what   string
}

// NewAgreement makes an Agreement that has seen nothing.
func NewAgreement() *Agreement {
	return &Agreement{
		wrong: violations{name: "agreement"}, leaders: map[uint64]string{}, entries: map[uint64]entry{},
		states: map[uint64]entry{}, revisions: map[string]int64{},
	}
}

// Leader says that a member acted as the leader of a term. A term has one.
func (a *Agreement) Leader(term uint64, member string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if other, ok := a.leaders[term]; ok && other != member {
		a.wrong.add("term %d has two leaders, %s and %s", term, other, member)
		return
	}
	a.leaders[term] = member
}

// Terms is how many terms had a leader.
func (a *Agreement) Terms() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.leaders)
}

// Applied says that a member applied the log entry of an index, and what came
// of it. All members must say the same of an index.
func (a *Agreement) Applied(member string, index uint64, what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.agree(a.entries, "entry", member, index, what)
}

// State says what a member's whole state was after an index, as a hash.
func (a *Agreement) State(member string, index uint64, hash string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.agree(a.states, "state", member, index, hash)
}

func (a *Agreement) agree(known map[uint64]entry, kind, member string, index uint64, what string) {
	first, ok := known[index]
	if !ok {
		known[index] = entry{member: member, what: what}
		return
	}
	if first.what != what {
		a.wrong.add("%s %d is %s on %s and %s on %s", kind, index, first.what, first.member, what, member)
	}
}

// Revision says which revision a run of a member is at. It never decreases
// while the run lasts.
func (a *Agreement) Revision(run string, revision int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if revision < a.revisions[run] {
		a.wrong.add("%s went back from revision %d to %d", run, a.revisions[run], revision)
	}
	a.revisions[run] = revision
}

// Answered says that a client was told of a write at a revision.
func (a *Agreement) Answered(revision int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answered = max(a.answered, revision)
}

// Leads says that a member has begun to lead, with the revision it has. What was
// answered before must be there. answered comes from AnsweredSoFar, called
// before the member began.
func (a *Agreement) Leads(member string, revision, answered int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if revision < answered {
		a.wrong.add("%s leads at revision %d, revision %d was answered before", member, revision, answered)
	}
}

// AnsweredSoFar is the newest revision a client was told of.
func (a *Agreement) AnsweredSoFar() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.answered
}

// Compacting says that a compaction at a revision was asked for, by a client or
// by the store itself.
func (a *Agreement) Compacting(revision int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.compacted = max(a.compacted, revision)
}

// Refused says that a member called a revision compacted, and which revision it
// called its oldest. That must be true: revision is older, and so much was
// really compacted.
func (a *Agreement) Refused(member string, revision, oldest int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if revision >= oldest {
		a.wrong.add("%s called revision %d compacted, its oldest is %d", member, revision, oldest)
	}
	if oldest > a.compacted {
		a.wrong.add("%s called %d its oldest revision, but only %d was compacted", member, oldest, a.compacted)
	}
}

// Err is what was found so far.
func (a *Agreement) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.wrong.err()
}
