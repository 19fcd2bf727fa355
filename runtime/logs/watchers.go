package logs

import (
	"io"
	"sync"
	"time"
)

// watchers are the clients attached to a container's output. Each has a bounded
// queue; while one is full the container waits for it, as it would for a slow
// terminal, but only so long: then the client is let go.
type watchers struct {
	mu     sync.Mutex // guards set and closed
	set    map[*watcher]struct{}
	closed bool
}

type watcher struct {
	chunks chan chunk
	gone   chan struct{} // closed when the client is not served any more
	once   sync.Once
}

type chunk struct {
	stream string
	data   []byte
}

const (
	watcherQueue    = 64
	watcherPatience = 5 * time.Second
)

func (w *watchers) init() { w.set = map[*watcher]struct{}{} }

// send gives data to every watcher. It is called by the streams' goroutines.
func (w *watchers) send(stream string, data []byte) {
	w.mu.Lock()
	var list []*watcher
	for c := range w.set {
		list = append(list, c)
	}
	w.mu.Unlock()
	if len(list) == 0 {
		return
	}
	c := chunk{stream, append([]byte(nil), data...)}
	for _, watcher := range list {
		select {
		case watcher.chunks <- c:
			continue
		case <-watcher.gone:
			continue
		default:
		}
		timer := time.NewTimer(watcherPatience)
		select {
		case watcher.chunks <- c:
		case <-watcher.gone:
		case <-timer.C:
			watcher.once.Do(func() { close(watcher.gone) })
		}
		timer.Stop()
	}
}

func (w *watchers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}

// watch serves one client until stop is closed, the output ends (done) or a write fails.
func (w *watchers) watch(stop, done <-chan struct{}, stdout, stderr io.Writer) error {
	c := &watcher{chunks: make(chan chunk, watcherQueue), gone: make(chan struct{})}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.set[c] = struct{}{}
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.set, c)
		w.mu.Unlock()
		c.once.Do(func() { close(c.gone) })
	}()
	write := func(k chunk) error {
		out := stdout
		if k.stream == Stderr {
			out = stderr
		}
		if out == nil {
			return nil
		}
		_, err := out.Write(k.data)
		return err
	}
	for {
		select {
		case <-stop:
			return nil
		case <-c.gone:
			return io.ErrShortWrite
		case k := <-c.chunks:
			if err := write(k); err != nil {
				return err
			}
		case <-done:
			for {
				select {
				case k := <-c.chunks:
					if err := write(k); err != nil {
						return err
					}
				default:
					return nil
				}
			}
		}
	}
}
