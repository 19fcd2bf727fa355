package apiserver

import (
	"context"
	"fmt"
	"time"
)

// mutationInterval is how often shared objects are compared with their copies,
// as often as client-go does.
const mutationInterval = time.Second

// detectMutations makes the server notice that somebody changes an object that
// readers, watches and informers share.
func (s *Server) detectMutations() {
	s.mutated = make(chan error, 1)
	s.hub.DetectMutations(func(key, difference string) {
		select {
		case s.mutated <- fmt.Errorf("the shared object %s was changed: %s", key, difference):
		default: // the first one is enough
		}
	})
}

// checkMutations calls end with the first mutation found, until ctx ends.
func (s *Server) checkMutations(ctx context.Context, end context.CancelCauseFunc) {
	ticker := time.NewTicker(mutationInterval)
	defer ticker.Stop()
	for {
		s.hub.CheckMutations()
		select {
		case err := <-s.mutated:
			end(err)
			return
		default:
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
