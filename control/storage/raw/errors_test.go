package raw

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/skiff-run/skiff/raftstore"
)

func TestRefusalsOfTheStoreTellClientsWhatToDo(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		err   error
		code  int32
		retry bool
	}{
		{"without a leader nothing was done: try again", raftstore.ErrNotLeader, http.StatusServiceUnavailable, true},
		{"a write that lost its leader may have been done", fmt.Errorf("%w: %w", raftstore.ErrOutcomeUnknown, raftstore.ErrNotLeader), http.StatusGatewayTimeout, false},
		{"a stopping server sends clients elsewhere", raftstore.ErrClosed, http.StatusServiceUnavailable, true},
		{"what may have been done is not done again by the client library", raftstore.ErrOutcomeUnknown, http.StatusGatewayTimeout, false},
		{"the request's time is up", context.DeadlineExceeded, http.StatusGatewayTimeout, false},
		{"too large", raftstore.ErrTooLarge, http.StatusRequestEntityTooLarge, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var status apierrors.APIStatus
			if err := unavailable(fmt.Errorf("put %q: %w", "/registry/x", test.err)); !errors.As(err, &status) {
				t.Fatalf("%v has no status", err)
			}
			if got := status.Status(); got.Code != test.code {
				t.Errorf("code %d, want %d", got.Code, test.code)
			}
			if seconds, suggested := apierrors.SuggestsClientDelay(status.(error)); suggested != test.retry {
				t.Errorf("asks to retry after %d s: %v, want %v", seconds, suggested, test.retry)
			}
		})
	}
	if unavailable(nil) != nil {
		t.Error("no error is no error")
	}
	if err := unavailable(context.Canceled); err != context.Canceled {
		t.Errorf("nobody waits for %v", err)
	}
}
