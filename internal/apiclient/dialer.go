package apiclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// dialTimeout bounds one attempt at one address.
	dialTimeout = 800 * time.Millisecond
	// patience is how long a request waits while no API server can be reached.
	// It goes on at once when one can; a request that failed would be repeated
	// only after a pause that grows with the length of the outage.
	patience = 5 * time.Minute
	// roundPause is between two attempts at all addresses.
	roundPause = 200 * time.Millisecond
)

// Dialer connects to any of several addresses: to the one that answered last
// as long as it answers, else to the next.
type Dialer struct {
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
	moved func(address string)
	// patience is how long a dial waits while no address can be reached.
	patience time.Duration
	// turn is held by who tries the addresses: others wait, however many they are.
	turn chan struct{}

	mu        sync.Mutex // guards all below
	addresses []string
	current   string // where the next attempt begins
	reached   string // connected to last
	open      map[*connection]bool
}

// NewDialer returns a dialer for the addresses, of which there must be one. It
// fails as soon as it has tried all.
func NewDialer(addresses []string) *Dialer {
	d := &Dialer{
		moved: func(string) {}, turn: make(chan struct{}, 1),
		addresses: addresses, current: addresses[0], open: map[*connection]bool{},
	}
	// HTTP/2 asks for signs of life itself, so the kernel's keepalive has nothing to do.
	tcp := &net.Dialer{Timeout: dialTimeout, KeepAlive: -1, Control: d.limitSilence}
	d.dial = tcp.DialContext
	return d
}

// pace is how soon a connection is believed to be dead now.
func (d *Dialer) pace() pace {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.addresses) > 1 {
		return hurried
	}
	return calm
}

// limitSilence makes the kernel give up a connection whose peer acknowledges
// nothing: a machine that lost its power sends no goodbye.
func (d *Dialer) limitSilence(_, _ string, c syscall.RawConn) error {
	var err error
	silence := d.pace().acknowledge
	if controlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds()))
	}); controlErr != nil {
		return controlErr
	}
	return err
}

// Set replaces the addresses. The present connections stay.
func (d *Dialer) Set(addresses []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addresses = addresses
}

// Addresses are those tried, in this order.
func (d *Dialer) Addresses() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.addresses)
}

// Abandon ends all connections; the next goes to another address if there is one.
func (d *Dialer) Abandon() {
	d.mu.Lock()
	d.current = d.after(d.current)
	var open []*connection
	for c := range d.open {
		open = append(open, c)
	}
	d.mu.Unlock()
	for _, c := range open {
		c.abandoned.Store(true)
		_ = c.Close()
	}
}

// after is the address that follows another. Callers hold mu.
func (d *Dialer) after(address string) string {
	return d.addresses[(slices.Index(d.addresses, address)+1)%len(d.addresses)]
}

// DialContext ignores the address it is asked for and connects to an API
// server. While none can be reached it waits, as long as patience lasts.
func (d *Dialer) DialContext(ctx context.Context, network, _ string) (net.Conn, error) {
	end := time.Now().Add(d.patience)
	var last error
	for {
		select {
		case d.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, errors.Join(last, context.Cause(ctx))
		}
		conn, err := d.round(ctx, network)
		over := !time.Now().Before(end)
		if err != nil && !over {
			last = err
			select {
			case <-time.After(roundPause):
			case <-ctx.Done():
			}
		}
		<-d.turn
		if err == nil {
			return conn, nil
		}
		if over || ctx.Err() != nil {
			return nil, fmt.Errorf("no API server can be reached: %w", err)
		}
	}
}

// round tries every address once.
func (d *Dialer) round(ctx context.Context, network string) (net.Conn, error) {
	d.mu.Lock()
	addresses := slices.Clone(d.addresses)
	begin := max(slices.Index(addresses, d.current), 0)
	d.mu.Unlock()
	var errs []error
	for i := range addresses {
		address := addresses[(begin+i)%len(addresses)]
		conn, err := d.dial(ctx, network, address)
		if err == nil {
			return d.connected(conn, address), nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (d *Dialer) connected(conn net.Conn, address string) net.Conn {
	c := &connection{Conn: conn, dialer: d, address: address}
	d.mu.Lock()
	moved := d.reached != "" && d.reached != address
	d.current, d.reached = address, address
	d.open[c] = true
	d.mu.Unlock()
	if moved {
		d.moved(address)
	}
	return c
}

// closed forgets a connection. After one that ended for no reason the peer gave
// the next attempt begins elsewhere: a paused API server accepts connections.
func (d *Dialer) closed(c *connection, suspect bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.open[c] {
		return
	}
	delete(d.open, c)
	if suspect && d.current == c.address {
		d.current = d.after(c.address)
	}
}

// connection knows how it ended.
type connection struct {
	net.Conn
	dialer    *Dialer
	address   string
	ended     atomic.Bool // by the peer
	abandoned atomic.Bool // by Abandon, which has moved on already
}

// Read implements net.Conn.
func (c *connection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	switch {
	case err == nil || errors.Is(err, net.ErrClosed):
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
		c.ended.Store(true)
	case !c.abandoned.Load():
		// Before anybody hears of it and tries the same address again.
		c.dialer.closed(c, true)
	}
	return n, err
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.dialer.closed(c, !c.ended.Load() && !c.abandoned.Load())
	return c.Conn.Close()
}
