package images

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
)

const (
	// pullLabel marks the leases that keep what a pull has fetched so far from
	// containerd's collector.
	pullLabel = "skiff.dev/pull"
	// leaseLength is when containerd lets go of a pull nobody finished, should no
	// agent start on this machine again.
	leaseLength = 24 * time.Hour
	// endLease is how long the end of a lease may take.
	endLease = 10 * time.Second
)

// lease makes what is fetched with the returned context stay until end is called.
func (s *Store) lease(ctx context.Context) (leased context.Context, end func(), err error) {
	manager := s.options.Client.LeasesService()
	// A lease that is made while the list of those under way is looked through
	// must not be taken for a dead one.
	s.leases.Lock()
	defer s.leases.Unlock()
	made, err := manager.Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseLength), leases.WithLabels(map[string]string{pullLabel: "true"}))
	if err != nil {
		return nil, nil, fmt.Errorf("make lease: %w", err)
	}
	s.leases.held[made.ID] = true
	return leases.WithLease(ctx, made.ID), func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLease)
		defer cancel()
		if err := manager.Delete(ctx, made); err != nil && !errdefs.IsNotFound(err) {
			s.options.Logger.Debug("lease of a pull stays until the next start", "lease", made.ID, "error", err)
		}
		s.leases.Lock()
		defer s.leases.Unlock()
		delete(s.leases.held, made.ID)
	}, nil
}

// endDeadLeases removes the leases of pulls that died with an earlier agent, or
// that could not be removed because containerd was away.
func (s *Store) endDeadLeases(ctx context.Context) error {
	s.leases.Lock()
	defer s.leases.Unlock()
	manager := s.options.Client.LeasesService()
	found, err := manager.List(ctx, fmt.Sprintf("labels.%q==true", pullLabel))
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	for _, l := range found {
		if s.leases.held[l.ID] {
			continue
		}
		if err := manager.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove lease %s: %w", l.ID, err)
		}
	}
	return nil
}
