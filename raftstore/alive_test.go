package raftstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/raftstore/storetest"
)

// TestAMemberWithoutMajorityIsAlive: it cannot read or write, but a new start
// would not help it.
func TestAMemberWithoutMajorityIsAlive(t *testing.T) {
	t.Parallel()
	c := storetest.NewCluster(t, 3)
	last := c.Members[0]
	vitals := last.Vitals()
	check := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return vitals.Check(ctx)
	}
	for _, m := range c.Members {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if err := m.Vitals().Check(ctx); err != nil {
			t.Errorf("%s of a whole store: %v", m.ID, err)
		}
		cancel()
	}
	for _, m := range c.Members[1:] {
		m.Stop()
	}
	testenv.Eventually(t, 30*time.Second, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		return last.Health(ctx) != nil
	}, "the store is still healthy without a majority")
	for range 3 {
		if err := check(); err != nil {
			t.Fatalf("without a majority: %v", err)
		}
	}
}
