package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/skiff-run/skiff/raftstore"
)

// network connects the members' processes. It loses, delays, repeats and
// reorders messages, cuts links in one or both directions, and holds back what a
// frozen process would receive or send.
type network struct {
	mu        sync.Mutex // guards all below; never held while waiting
	random    *rand.Rand
	endpoints map[string]*endpoint // by member id
	cut       map[link]bool
	weather   weather
	counts    networkCounts
	// leads is told who sends the log in which term.
	leads func(term uint64, member string)
}

// link is one direction between two members.
type link struct{ from, to string }

// weather is how all links behave that are not cut.
type weather struct {
	delay     time.Duration // at least so long
	jitter    time.Duration // and up to so much more, so that messages overtake
	drop      float64
	duplicate float64
}

type networkCounts struct{ sent, dropped, duplicated, snapshots int }

var (
	errRefused = fmt.Errorf("connection refused: %w", raftstore.ErrUnreachable)
	errReset   = errors.New("connection reset")
	errTimeout = errors.New("no answer in time")
	errClosed  = errors.New("network is closed")
)

// Patience of the sides of a connection.
const (
	messageTimeout  = 500 * time.Millisecond
	snapshotTimeout = 5 * time.Second
)

func newNetwork(random *rand.Rand, leads func(uint64, string)) *network {
	return &network{random: random, endpoints: map[string]*endpoint{}, cut: map[link]bool{}, leads: leads}
}

// setWeather changes how links behave.
func (n *network) setWeather(w weather) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.weather = w
}

// setCut cuts directions or heals all that are not named.
func (n *network) setCut(links ...link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	for _, l := range links {
		n.cut[l] = true
	}
}

// fate decides what happens to one message.
type fate struct {
	lost      bool
	delay     time.Duration
	duplicate time.Duration // 0 for none
}

func (n *network) fate(l link) fate {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counts.sent++
	w := n.weather
	f := fate{delay: w.delay}
	if w.jitter > 0 {
		f.delay += time.Duration(n.random.Int64N(int64(w.jitter)))
	}
	if n.cut[l] || w.drop > 0 && n.random.Float64() < w.drop {
		f.lost = true
		n.counts.dropped++
	}
	if w.duplicate > 0 && n.random.Float64() < w.duplicate {
		f.duplicate = f.delay + time.Duration(n.random.Int64N(int64(20*time.Millisecond)))
		n.counts.duplicated++
	}
	return f
}

// find returns the process of a member, nil if it is down.
func (n *network) find(member string) *endpoint {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.endpoints[member]
}

// exchange sends a message and waits for the answer. deliver is called with the
// endpoint that received it, perhaps twice, and its result goes back.
func exchange[T any](from *endpoint, to string, timeout time.Duration, deliver func(*endpoint) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	n := from.network
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	if err := from.thawed(deadline.C); err != nil {
		return none, err
	}
	there := fateOf(from, to)
	if err := from.pause(there.delay); err != nil {
		return none, err
	}
	if there.lost {
		return none, from.wait(deadline.C)
	}
	target := n.find(to)
	if target == nil || !target.open() {
		return none, fmt.Errorf("member %s: %w", to, errRefused)
	}
	if !target.admits(from.local.ID) {
		return none, fmt.Errorf("member %s does not admit %s: %w", to, from.local.ID, errRefused)
	}
	answered := make(chan result, 1)
	target.spawn(func() {
		if target.thawed(nil) != nil {
			return
		}
		value, err := deliver(target)
		answered <- result{value, err}
	})
	if there.duplicate > 0 {
		target.spawn(func() {
			if target.pause(there.duplicate) == nil && target.thawed(nil) == nil {
				_, _ = deliver(target) // its answer goes nowhere
			}
		})
	}
	var r result
	select {
	case r = <-answered:
	case <-target.closed:
		return none, fmt.Errorf("member %s: %w", to, errReset)
	case <-from.closed:
		return none, errClosed
	case <-deadline.C:
		// The timer of a frozen process fires when it goes on, and the answer may
		// lie there by then.
		if err := from.thawed(nil); err != nil {
			return none, err
		}
		select {
		case r = <-answered:
		default:
			return none, errTimeout
		}
	}
	if target.thawed(nil) != nil {
		return none, fmt.Errorf("member %s: %w", to, errReset)
	}
	back := fateOf(target, from.local.ID)
	if err := from.pause(back.delay); err != nil {
		return none, err
	}
	if back.lost {
		return none, from.wait(deadline.C)
	}
	if err := from.thawed(nil); err != nil {
		return none, err
	}
	return r.value, r.err
}

func fateOf(from *endpoint, to string) fate { return from.network.fate(link{from.local.ID, to}) }

// endpoint is one process on the network. It implements raftstore.Network.
type endpoint struct {
	network    *network
	local      raftstore.Local
	handler    raftstore.Handler
	transport  *transport
	closed     chan struct{}
	close      func() error // once
	background sync.WaitGroup
	ctx        context.Context // ends with the endpoint
	cancel     context.CancelFunc

	mu     sync.Mutex    // guards all below
	frozen chan struct{} // closed when the process goes on; nil while it runs
	ended  bool          // no goroutine begins any more
}

var _ raftstore.Network = (*endpoint)(nil)

func (n *network) newEndpoint() *endpoint {
	e := &endpoint{network: n, closed: make(chan struct{})}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.close = sync.OnceValue(func() error {
		n.mu.Lock()
		if n.endpoints[e.local.ID] == e {
			delete(n.endpoints, e.local.ID)
		}
		n.mu.Unlock()
		e.mu.Lock()
		e.ended = true
		e.mu.Unlock()
		close(e.closed)
		e.cancel()
		return nil
	})
	return e
}

// Start implements raftstore.Network.
func (e *endpoint) Start(local raftstore.Local, handler raftstore.Handler) (raftstore.Transport, error) {
	e.local, e.handler = local, handler
	e.transport = newTransport(e)
	if !e.open() {
		return nil, errClosed
	}
	e.network.mu.Lock()
	defer e.network.mu.Unlock()
	e.network.endpoints[local.ID] = e
	return e.transport, nil
}

// Close implements raftstore.Network.
func (e *endpoint) Close() error {
	err := e.close()
	e.background.Wait()
	return err
}

// spawn runs f beside, unless the endpoint was closed: then f never runs, and
// nobody may wait for it but together with closed.
func (e *endpoint) spawn(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.ended {
		e.background.Go(f)
	}
}

func (e *endpoint) admits(member string) bool { return e.local.Admits == nil || e.local.Admits(member) }

func (e *endpoint) open() bool {
	select {
	case <-e.closed:
		return false
	default:
		return true
	}
}

// freeze holds back all messages from and to the process, or lets it go on.
func (e *endpoint) freeze(frozen bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case frozen && e.frozen == nil:
		e.frozen = make(chan struct{})
	case !frozen && e.frozen != nil:
		close(e.frozen)
		e.frozen = nil
	}
}

// thawed waits until the process runs.
func (e *endpoint) thawed(deadline <-chan time.Time) error {
	e.mu.Lock()
	frozen := e.frozen
	e.mu.Unlock()
	if frozen == nil {
		return nil
	}
	select {
	case <-frozen:
		return nil
	case <-deadline:
		return errTimeout
	case <-e.closed:
		return errClosed
	}
}

// pause lets time pass.
func (e *endpoint) pause(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-e.closed:
		return errClosed
	}
}

// wait is what a sender does whose message was lost.
func (e *endpoint) wait(deadline <-chan time.Time) error {
	select {
	case <-deadline:
		return errTimeout
	case <-e.closed:
		return errClosed
	}
}

// Call implements raftstore.Network.
func (e *endpoint) Call(ctx context.Context, member, _ string, request []byte) ([]byte, error) {
	type result struct {
		answer []byte
		err    error
	}
	done := make(chan result, 1)
	e.spawn(func() {
		answer, err := exchange(e, member, 10*time.Second, func(target *endpoint) ([]byte, error) {
			handling, cancel := context.WithCancel(target.ctx)
			defer cancel()
			defer context.AfterFunc(ctx, cancel)()
			return target.handler(handling, e.local.ID, append([]byte(nil), request...)), nil
		})
		done <- result{answer, err}
	})
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-e.closed:
		return nil, errClosed
	}
}
