package peer

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// maxCalls is how many calls of one connection are handled at once; more wait
// unread.
const maxCalls = 256

// serve answers the calls of one connection until it ends.
func (n *Network) serve(conn net.Conn, from string) {
	ctx, cancel := context.WithCancel(n.ctx)
	var handling sync.WaitGroup
	defer func() {
		cancel()
		_ = conn.Close()
		handling.Wait()
	}()
	slots := make(chan struct{}, maxCalls)
	var writing sync.Mutex // one frame at a time
	r := bufio.NewReaderSize(conn, 64<<10)
	for {
		number, request, err := readFrame(r)
		if err != nil {
			if !errors.Is(err, io.EOF) && n.ctx.Err() == nil {
				n.log.Debug("a member's calls ended", "member", from, "error", err)
			}
			return
		}
		select {
		case slots <- struct{}{}:
		case <-n.ctx.Done():
			return
		}
		handling.Go(func() {
			defer func() { <-slots }()
			answer := frame(number, n.handler(ctx, from, request))
			writing.Lock()
			defer writing.Unlock()
			if _, err := conn.Write(answer); err != nil {
				_ = conn.Close() // the reader ends, and with it the connection
			}
		})
	}
}
