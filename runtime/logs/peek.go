package logs

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// pipeSize is the kernel's default capacity of a pipe.
const pipeSize = 64 * 1024

// peeker is a private pipe into which tee(2) copies, and a buffer into which its
// content is read. Peekers are shared by all pumps, because a pump needs one only
// while it handles output.
type peeker struct {
	r, w int
	buf  []byte
}

// peekers lends them out; those at rest are few and are never given back to the kernel.
type peekers struct {
	mu   sync.Mutex
	free []*peeker
}

const maxFreePeekers = 4

func (p *peekers) get() (*peeker, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		k := p.free[n-1]
		p.free = p.free[:n-1]
		return k, nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	return &peeker{r: fds[0], w: fds[1], buf: make([]byte, pipeSize)}, nil
}

func (p *peekers) put(k *peeker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) < maxFreePeekers {
		p.free = append(p.free, k)
		return
	}
	k.close()
}

func (p *peekers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.free {
		k.close()
	}
	p.free = nil
}

func (k *peeker) close() {
	unix.Close(k.r)
	unix.Close(k.w)
}

// peek copies what is in the pipe without taking it out. Like read, it returns no
// data and no error when nobody has the pipe open for writing, EAGAIN when it is empty.
func (k *peeker) peek(fd int) ([]byte, error) {
	var n int64
	var err error
	for {
		n, err = unix.Tee(fd, k.w, pipeSize, unix.SPLICE_F_NONBLOCK)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil || n <= 0 {
		return nil, err
	}
	return k.buf[:n], readFull(k.r, k.buf[:n])
}

// take removes n bytes from the pipe; they are known to be there.
func take(fd, n int, scratch []byte) error { return readFull(fd, scratch[:n]) }

func readFull(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Read(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("read", err)
		}
		if n == 0 {
			return fmt.Errorf("pipe ended %d bytes early", len(b))
		}
		b = b[n:]
	}
	return nil
}

// inPipe is how many bytes wait in the pipe.
func inPipe(fd int) (uint32, error) {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	return uint32(n), err
}
