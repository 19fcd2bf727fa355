package operations

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/internal/pki"
)

// checkLimit bounds one check: what hangs is not healthy.
const checkLimit = 2 * time.Second

// status tells how this machine sees itself. It never waits for a majority.
func (o *Operations) status(r *http.Request) (any, error) {
	s := o.Store.Status()
	status := operator.Status{
		MemberID: s.MemberID, NodeName: o.NodeName, Version: o.Version, Started: o.started.UTC(), Time: time.Now().UTC(), Address: o.Address,
		ControlAddresses: o.controlAddresses(r.Context()),
		Store: operator.Store{
			Leader: s.Leader, LeaderID: s.LeaderID, Voters: s.Voters, Term: s.Term, Revision: s.Revision,
			CompactRevision: s.CompactRevision, Keys: s.Keys, Bytes: s.Bytes, Problem: s.Problem,
		},
		Checks: o.runChecks(r.Context()), Certificates: certificates(o.PKIDir),
	}
	return status, nil
}

func (o *Operations) runChecks(ctx context.Context) map[string]string {
	results := make(map[string]string, len(o.Checks))
	for name, healthy := range o.Checks {
		limited, cancel := context.WithTimeout(ctx, checkLimit)
		results[name] = "ok"
		if err := healthy(limited); err != nil {
			results[name] = err.Error()
		}
		cancel()
	}
	return results
}

// certificates lists the certificates of this machine, soonest end first.
func certificates(dir string) []operator.Certificate {
	all, err := pki.Check(dir)
	if err != nil {
		return []operator.Certificate{{Name: dir, Problem: err.Error()}}
	}
	found := make([]operator.Certificate, 0, len(all))
	for _, each := range all {
		found = append(found, operator.Certificate{Name: each.Name, NotAfter: each.NotAfter.UTC(), Problem: each.Problem})
	}
	slices.SortStableFunc(found, func(a, b operator.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return found
}
