package apiclient

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// world is API servers that are up or not, in memory.
type world struct {
	mu    sync.Mutex
	down  map[string]bool
	tried []string
	peers []net.Conn // the servers' ends, in the order they were connected to
}

func (w *world) dial(_ context.Context, _, address string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tried = append(w.tried, address)
	if w.down[address] {
		return nil, errors.New("refused")
	}
	client, server := net.Pipe()
	w.peers = append(w.peers, server)
	return client, nil
}

func (w *world) set(down ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down, w.tried = map[string]bool{}, nil
	for _, address := range down {
		w.down[address] = true
	}
}

func newDialer(addresses ...string) (*Dialer, *world) {
	w := &world{}
	d := NewDialer(addresses)
	d.dial = w.dial
	return d, w
}

// connect connects and lets the peer end the connection.
func connect(t *testing.T, d *Dialer, w *world) {
	t.Helper()
	conn := open(t, d)
	_ = w.peers[len(w.peers)-1].Close()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func open(t *testing.T, d *Dialer) net.Conn {
	t.Helper()
	conn, err := d.DialContext(t.Context(), "tcp", "whatever:6443")
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestTheDialerMovesOnWhenAnAddressFailsAndThenStays(t *testing.T) {
	t.Parallel()
	d, w := newDialer("a:1", "b:1", "c:1")
	var moves []string
	d.moved = func(address string) { moves = append(moves, address) }
	for i, s := range []struct{ down, want []string }{
		{nil, []string{"a:1"}},
		{[]string{"a:1"}, []string{"a:1", "b:1"}},
		{[]string{"a:1"}, []string{"b:1"}},
		{[]string{"b:1", "c:1"}, []string{"b:1", "c:1", "a:1"}},
	} {
		w.set(s.down...)
		if connect(t, d, w); !slices.Equal(w.tried, s.want) {
			t.Errorf("step %d: tried %q, want %q", i, w.tried, s.want)
		}
	}
	if !slices.Equal(moves, []string{"b:1", "a:1"}) {
		t.Errorf("moves %v", moves)
	}
}

func TestAConnectionThatThePeerDidNotEndMakesTheNextGoElsewhere(t *testing.T) {
	t.Parallel()
	d, w := newDialer("a:1", "b:1")
	_ = open(t, d).Close() // given up, as after a handshake that took too long
	w.set()
	if open(t, d); !slices.Equal(w.tried, []string{"b:1"}) {
		t.Errorf("tried %q", w.tried)
	}
}

func TestAbandonEndsAllConnectionsAndMovesOnOnce(t *testing.T) {
	t.Parallel()
	d, w := newDialer("a:1", "b:1", "c:1")
	one, other := open(t, d), open(t, d)
	d.Abandon()
	for _, conn := range []net.Conn{one, other} {
		if _, err := conn.Write([]byte("x")); err == nil {
			t.Error("an abandoned connection still writes")
		}
		_ = conn.Close()
	}
	w.set()
	if open(t, d); !slices.Equal(w.tried, []string{"b:1"}) {
		t.Errorf("tried %q", w.tried)
	}
}

func TestRequestsWaitWhileNobodyCanBeReachedAndThenGoOnAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, w := newDialer("a:1", "b:1")
		d.patience = patience
		w.set("a:1", "b:1")
		const waiting = 20
		var connected sync.WaitGroup
		for range waiting {
			connected.Go(func() { open(t, d) })
		}
		time.Sleep(time.Minute)
		// All together they try as often as one would.
		if rounds := len(w.tried) / 2; rounds > int(time.Minute/roundPause)+1 {
			t.Errorf("%d rounds in a minute", rounds)
		}
		w.set("a:1")
		begin := time.Now()
		connected.Wait()
		if took := time.Since(begin); took > roundPause {
			t.Errorf("connected after %s", took)
		}
	})
}

func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, w := newDialer("a:1")
		w.set("a:1")
		if _, err := d.DialContext(t.Context(), "tcp", "a:1"); err == nil || len(w.tried) != 1 {
			t.Errorf("without patience: %v after %d attempts", err, len(w.tried))
		}
		d.patience = patience
		begin := time.Now()
		if _, err := d.DialContext(t.Context(), "tcp", "a:1"); err == nil {
			t.Error("connected")
		}
		if took := time.Since(begin); took < patience || took > patience+time.Second {
			t.Errorf("gave up after %s", took)
		}
	})
}

func TestNewAddressesAreTriedAfterThePresentOne(t *testing.T) {
	t.Parallel()
	d, w := newDialer("a:1")
	connect(t, d, w)
	d.Set([]string{"b:1", "a:1", "c:1"})
	w.set("a:1")
	if connect(t, d, w); !slices.Equal(w.tried, []string{"a:1", "c:1"}) {
		t.Errorf("tried %q", w.tried)
	}
	// The present one may be gone from the list.
	d.Set([]string{"b:1"})
	w.set()
	if connect(t, d, w); !slices.Equal(w.tried, []string{"b:1"}) {
		t.Errorf("tried %q", w.tried)
	}
}
