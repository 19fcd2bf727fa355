package apiclient

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
)

// strikes is how many writes in a row may fail for want of a working store
// before another API server is asked.
const strikes = 2

// judge notices an API server that answers but cannot write, because its store
// is cut off from the others.
type judge struct {
	next   http.RoundTripper
	dialer *Dialer
	failed atomic.Int32
}

// RoundTrip implements http.RoundTripper.
func (j *judge) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := j.next.RoundTrip(request)
	if request.Method == http.MethodGet {
		return response, err // may be answered from memory, whatever the store does
	}
	switch {
	case err == nil && response.StatusCode < http.StatusInternalServerError:
		j.failed.Store(0)
	case err == nil || errors.Is(err, context.DeadlineExceeded):
		if j.failed.Add(1) >= strikes {
			j.failed.Store(0)
			j.dialer.Abandon()
		}
	}
	return response, err
}

// WrappedRoundTripper lets client-go find the transport beneath.
func (j *judge) WrappedRoundTripper() http.RoundTripper { return j.next }
