// Package activity tells a loop that works from one that hangs: for how long it
// has been at one piece of work. It knows nothing of the work.
package activity

import (
	"sync/atomic"
	"time"
)

// Activity is that of one loop, which does one piece of work at a time. The zero
// value waits for work. Lasts may be called from any goroutine.
type Activity struct{ began atomic.Pointer[time.Time] }

// Begin says that a piece of work begins; the function it returns, that it ends.
func (a *Activity) Begin() (end func()) {
	now := time.Now()
	a.began.Store(&now)
	return func() { a.began.Store(nil) }
}

// Lasts is how long the present piece of work has been going on; 0 while the
// loop waits for work.
func (a *Activity) Lasts() time.Duration {
	began := a.began.Load()
	if began == nil {
		return 0
	}
	return time.Since(*began)
}
