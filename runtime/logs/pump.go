package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// partialAfter is how long the beginning of a line waits for its end before it is
// written as a part: long enough not to cut the lines of programs that print in
// pieces, short enough to show a prompt to whoever follows the log.
const partialAfter = 100 * time.Millisecond

// Config says where a container's output comes from and goes to.
type Config struct {
	// Stdout and Stderr are the named pipes; empty for none. Mark files lie beside them.
	Stdout, Stderr string
	// Path is the log file; empty to throw the output away unless someone is attached.
	Path string
	// Limits bound the log file.
	Limits Limits
	// Logger hears of output that cannot be written.
	Logger *slog.Logger
}

// Pumps makes pumps; it holds what they share.
type Pumps struct{ peekers peekers }

// Close releases what the pumps shared. They must be closed already.
func (p *Pumps) Close() { p.peekers.close() }

// Pump moves the output of one container. It owns one goroutine per stream, which
// sleeps in the poller while there is no output.
type Pump struct {
	config   Config
	pumps    *Pumps
	file     *file
	streams  []*stream
	watchers watchers
	running  sync.WaitGroup
	done     chan struct{}
}

type stream struct {
	name  string
	fifo  *os.File
	raw   syscall.RawConn
	mark  mark
	sent  int         // bytes at the pipe's head that watchers have got already
	armed atomic.Bool // the shim has opened the pipe: its end is the end of the output
	stop  atomic.Bool // Close was called
	leave atomic.Bool // Abandon was called
}

// Open makes the named pipes that are missing, or finds the pipes and the log of
// an earlier process again, and begins to move output.
func (p *Pumps) Open(c Config) (*Pump, error) {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	pump := &Pump{config: c, pumps: p, done: make(chan struct{})}
	pump.watchers.init()
	if c.Path != "" {
		var err error
		if pump.file, err = openFile(c.Path, c.Limits); err != nil {
			return nil, err
		}
	}
	for _, s := range []struct{ name, path string }{{Stdout, c.Stdout}, {Stderr, c.Stderr}} {
		if s.path == "" {
			continue
		}
		if err := pump.openStream(s.name, s.path); err != nil {
			pump.closeFiles()
			return nil, err
		}
	}
	for _, s := range pump.streams {
		pump.running.Add(1)
		go func() {
			defer pump.running.Done()
			pump.run(s)
		}()
	}
	go func() {
		pump.running.Wait()
		pump.closeFiles()
		pump.watchers.close()
		close(pump.done)
	}()
	return pump, nil
}

func (p *Pump) openStream(name, path string) error {
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make pipe %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open pipe: %w", err)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return fmt.Errorf("open pipe: %w", err)
	}
	s := &stream{name: name, fifo: f, raw: raw}
	if s.mark, err = openMark(path + ".mark"); err != nil {
		f.Close()
		return err
	}
	p.streams = append(p.streams, s)
	if err := p.recover(s); err != nil {
		return fmt.Errorf("recover %s: %w", name, err)
	}
	return nil
}

// recover takes out of the pipe what a killed process had already appended to the log.
func (p *Pump) recover(s *stream) error {
	a, pending := s.mark.read()
	if !pending || p.file == nil {
		return nil
	}
	tail, err := p.file.tail()
	if err != nil {
		return err
	}
	if a.at.After(p.file.last) {
		p.file.last = a.at
	}
	written := payload(tail, a.at, s.name)
	k, err := p.pumps.peekers.get()
	if err != nil {
		return err
	}
	defer p.pumps.peekers.put(k)
	var failed error
	err = s.raw.Control(func(fd uintptr) {
		// Fewer bytes than before: they were taken out, only the note of it is missing.
		if n, err := inPipe(int(fd)); err != nil || n < a.available || len(written) == 0 {
			failed = err
			return
		}
		head, err := k.peek(int(fd))
		if err != nil && err != unix.EAGAIN {
			failed = err
			return
		}
		if bytes.HasPrefix(head, written) {
			failed = take(int(fd), len(written), k.buf)
		}
	})
	return errors.Join(err, failed, s.mark.done())
}

// Armed tells the pump that the shim has opened the pipes, so that an end of them is the end of the output.
func (p *Pump) Armed() {
	for _, s := range p.streams {
		s.armed.Store(true)
		s.wake()
	}
}

// Done is closed when all output has been written and everything is closed.
func (p *Pump) Done() <-chan struct{} { return p.done }

// Close writes what is in the pipes and ends the pump.
func (p *Pump) Close() {
	for _, s := range p.streams {
		s.stop.Store(true)
		s.wake()
	}
	<-p.done
}

// Abandon ends the pump at once and leaves the pipes as they are, for a later process to go on.
func (p *Pump) Abandon() {
	for _, s := range p.streams {
		s.leave.Store(true)
		s.fifo.Close()
	}
	<-p.done
}

// Reopen opens the log file anew, after someone moved it away.
func (p *Pump) Reopen() error {
	if p.file == nil {
		return nil
	}
	p.file.mu.Lock()
	defer p.file.mu.Unlock()
	if p.file.f == nil {
		return errors.New("log is closed: the container has exited")
	}
	return p.file.reopen()
}

// Watch copies the output to these writers until ctx-like stop is closed, a write fails or the output ends.
func (p *Pump) Watch(stop <-chan struct{}, stdout, stderr io.Writer) error {
	return p.watchers.watch(stop, p.done, stdout, stderr)
}

func (s *stream) wake() { _ = s.fifo.SetReadDeadline(time.Unix(1, 0)) }

// run moves the output of one stream until its end.
func (p *Pump) run(s *stream) {
	left := 0 // bytes of an unfinished line at the pipe's head
	armed := false
	for {
		deadline := time.Time{}
		if left > 0 {
			deadline = time.Now().Add(partialAfter)
		}
		_ = s.fifo.SetReadDeadline(deadline)
		// wake may have come before the deadline was set: then look once without waiting.
		stop := s.stop.Load()
		now := stop || s.armed.Load() && !armed
		armed = s.armed.Load()
		end, rest, err := p.step(s, left, now, false)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// A line's end did not come, or wake asks us to look again.
			end, rest, err = p.step(s, 0, true, left > 0)
		}
		if end || err != nil {
			if err != nil && !s.leave.Load() {
				p.config.Logger.Error("container output cannot be moved any further", "log", p.config.Path, "stream", s.name, "error", err)
			}
			return
		}
		left = rest
	}
}

// step waits for more than the left bytes it knows about, unless now is set, and
// writes what is complete; with flush also a line's beginning. It returns whether
// the output has ended and how many bytes of an unfinished line stay in the pipe.
func (p *Pump) step(s *stream, left int, now, flush bool) (end bool, rest int, err error) {
	var k *peeker
	defer func() {
		if k != nil {
			p.pumps.peekers.put(k)
		}
	}()
	var failed error
	look := func(fd uintptr) bool {
		if k == nil {
			if k, failed = p.pumps.peekers.get(); failed != nil {
				return true
			}
		}
		data, err := k.peek(int(fd))
		switch {
		case err == unix.EAGAIN:
			end, rest = s.stop.Load(), 0
		case err != nil:
			failed = err
			return true
		case len(data) == 0: // nobody writes
			end, rest = s.armed.Load() || s.stop.Load(), 0
		case len(data) > left || now:
			ended := s.stop.Load()
			rest, failed = p.move(s, int(fd), k, data, flush || ended)
			return true
		default:
			rest = left
		}
		if end || now {
			return true
		}
		// Nothing to do: do not hold the buffer while waiting.
		p.pumps.peekers.put(k)
		k = nil
		return false
	}
	if now {
		err = s.raw.Control(func(fd uintptr) { look(fd) })
	} else {
		err = s.raw.Read(look)
	}
	return end, rest, errors.Join(err, failed)
}

// move appends data to the log and then takes it out of the pipe.
func (p *Pump) move(s *stream, fd int, k *peeker, data []byte, flush bool) (left int, err error) {
	if s.sent < len(data) {
		p.watchers.send(s.name, data[s.sent:])
		s.sent = len(data)
	}
	n := complete(data)
	if flush {
		n = len(data)
	}
	if n == 0 {
		return len(data), nil
	}
	if p.file != nil {
		err := p.file.append(s.name, data[:n], func(at time.Time) error {
			return s.mark.announce(announcement{at: at, available: uint32(len(data))})
		})
		if err != nil {
			// A full disk must not stop the container: its output goes on without being kept.
			p.config.Logger.Error("container output is lost: the log file cannot be written", "log", p.config.Path, "bytes", n, "error", err)
		}
	}
	rest := len(data) - n
	if err := take(fd, n, k.buf); err != nil {
		return 0, err
	}
	s.sent -= n
	if p.file != nil {
		return rest, s.mark.done()
	}
	return rest, nil
}

func (p *Pump) closeFiles() {
	for _, s := range p.streams {
		s.fifo.Close()
		s.mark.f.Close()
	}
	if p.file != nil {
		p.file.close()
	}
}
