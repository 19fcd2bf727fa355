package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/skiff-run/skiff/raftstore"
)

// callers keeps one connection for calls to each member.
type callers struct {
	network *Network

	mu    sync.Mutex // guards links
	links map[string]*link
}

func newCallers(n *Network) *callers { return &callers{network: n, links: map[string]*link{}} }

// link is the way to one member at one address. It is dialled when a call needs
// it, by one goroutine for all that wait.
type link struct {
	address string
	ready   chan struct{} // closed when conn or err is there
	conn    *callConn
	err     error
}

// Call implements raftstore.Network.
func (n *Network) Call(ctx context.Context, memberID, address string, request []byte) ([]byte, error) {
	if len(request) > maxFrame {
		return nil, fmt.Errorf("call member %s: the request has %d bytes, the limit is %d", memberID, len(request), maxFrame)
	}
	l := n.calls.link(memberID, address)
	select {
	case <-l.ready:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: member %s: %w", raftstore.ErrUnreachable, memberID, ctx.Err())
	}
	if l.err != nil {
		return nil, l.err
	}
	answer, err := l.conn.call(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("call member %s: %w", memberID, err)
	}
	return answer, nil
}

// link returns the present way to a member, beginning to dial if there is none.
func (c *callers) link(memberID, address string) *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.network.ctx.Err() != nil {
		l := &link{ready: make(chan struct{}), err: fmt.Errorf("%w: %w", raftstore.ErrUnreachable, net.ErrClosed)}
		close(l.ready)
		return l
	}
	l := c.links[memberID]
	if l != nil && l.address == address {
		return l
	}
	if l != nil {
		c.drop(l)
	}
	l = &link{address: address, ready: make(chan struct{})}
	c.links[memberID] = l
	c.network.running.Go(func() { c.connect(l, memberID) })
	return l
}

// stop waits until no call can begin to dial any more, after the network's
// context has ended.
func (c *callers) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
}

// drop ends the connection of a link whose address is not right any more.
func (c *callers) drop(l *link) {
	c.network.running.Go(func() {
		<-l.ready
		if l.conn != nil {
			l.conn.end(errors.New("the member's address has changed"))
		}
	})
}

// connect dials for a link and reads its answers until the connection ends.
func (c *callers) connect(l *link, memberID string) {
	conn, err := c.network.dial(c.network.ctx, memberID, l.address, protocolCall)
	if err == nil {
		tracked := &trackedConn{Conn: conn, network: c.network}
		if c.network.track(tracked) {
			l.conn = &callConn{conn: tracked, waiting: map[uint64]chan []byte{}, ended: make(chan struct{})}
		} else {
			err = fmt.Errorf("%w: %w", raftstore.ErrUnreachable, net.ErrClosed)
		}
	}
	l.err = err
	if err == nil {
		close(l.ready)
		l.conn.read()
	}
	c.mu.Lock()
	if c.links[memberID] == l {
		delete(c.links, memberID)
	}
	c.mu.Unlock()
	if err != nil {
		close(l.ready)
	}
}

// callConn is an open connection with calls on their way.
type callConn struct {
	conn  net.Conn
	ended chan struct{} // closed when err is set

	writing sync.Mutex // one frame at a time

	mu      sync.Mutex // guards all below
	err     error      // why it ended
	next    uint64
	waiting map[uint64]chan []byte
}

func (c *callConn) call(ctx context.Context, request []byte) ([]byte, error) {
	answer := make(chan []byte, 1)
	c.mu.Lock()
	if err := c.err; err != nil {
		c.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", raftstore.ErrUnreachable, err)
	}
	c.next++
	number := c.next
	c.waiting[number] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, number)
		c.mu.Unlock()
	}()
	b := frame(number, request)
	c.writing.Lock()
	_, err := c.conn.Write(b)
	c.writing.Unlock()
	if err != nil {
		c.end(err)
		return nil, err
	}
	select {
	case content := <-answer:
		return content, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.ended:
	}
	select {
	case content := <-answer:
		return content, nil
	default:
		return nil, fmt.Errorf("the connection ended: %w", c.err)
	}
}

// read hands the answers to who waits for them, until the connection ends.
func (c *callConn) read() {
	r := bufio.NewReaderSize(c.conn, 64<<10)
	for {
		number, content, err := readFrame(r)
		if err != nil {
			c.end(err)
			return
		}
		c.mu.Lock()
		if answer := c.waiting[number]; answer != nil {
			answer <- content // holds one, and there is one answer to a call
			delete(c.waiting, number)
		}
		c.mu.Unlock()
	}
}

// end closes the connection for the reason given first.
func (c *callConn) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	close(c.ended)
	_ = c.conn.Close() // the reason is known already
}
