// Package tally is what a caller counts and the proof reads.
package tally

import (
	"fmt"
	"time"
)

// kept is how many failures are told in full.
const kept = 10

// Report is what one caller counted.
type Report struct {
	// New are requests by connections of their own, Kept those by one connection
	// (a failure is the end of that connection), Names look-ups in the cluster's DNS.
	New, Kept, Names Count
}

// Count is of one kind of calls.
type Count struct {
	Done, Failed int
	// Slowest is the longest that a call took, failed or not.
	Slowest time.Duration
	// Failures are the first ones.
	Failures []string
}

// Add counts a call that began at a time, and took since says how long. One
// goroutine at a time.
func (c *Count) Add(began time.Time, since func(time.Time) time.Duration, err error) {
	took := since(began)
	c.Slowest = max(c.Slowest, took)
	c.Done++
	if err == nil {
		return
	}
	c.Failed++
	if len(c.Failures) < kept {
		c.Failures = append(c.Failures, fmt.Sprintf("%s after %s: %v", began.Format("15:04:05.000"), took.Round(time.Millisecond), err))
	}
}

// String is a line for a person.
func (c Count) String() string {
	return fmt.Sprintf("%d calls, %d failed, the slowest took %s %q", c.Done, c.Failed, c.Slowest.Round(time.Millisecond), c.Failures)
}
