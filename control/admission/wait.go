package admission

import (
	"context"
	"time"
)

// readyLimit is how long a request waits for the server's first state before
// it is refused, upstream's figure.
const readyLimit = 10 * time.Second

func waitFor(ctx context.Context, condition func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		if condition() {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
}
