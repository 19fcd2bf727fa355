package apiserver

import (
	"context"
	"fmt"
)

// Alive returns an error when a request that needs neither store nor others is
// not answered until ctx ends: requests hang in the server itself. It may be
// called once Run has begun.
func (s *Server) Alive(ctx context.Context) error {
	answered := make(chan error, 1)
	// A request that hangs ends with the process.
	go func() { answered <- s.client.Discovery().RESTClient().Get().AbsPath("/livez/ping").Do(ctx).Error() }()
	select {
	case err := <-answered:
		if err != nil {
			return fmt.Errorf("the API server does not answer /livez/ping: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the API server does not answer /livez/ping: %w", context.Cause(ctx))
	}
}
