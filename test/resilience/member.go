package resilience

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/test/host"
)

// controlProgram is the daemon of a control machine.
const controlProgram = "skiff-control"

// Member is a control machine: a host and the daemon on it, which is started
// again whenever it ends.
type Member struct {
	*host.Host
	// Program is the path of skiff-control, Config its configuration on the host.
	Program, Config string
	// ID is its name in the store.
	ID string
	// Small: the store lies on a small disk in memory, which a reboot would empty.
	Small bool
	// LogPath is where the daemon's words go, on our side.
	LogPath string

	mu      sync.Mutex // guards all below
	running context.CancelFunc
	ended   chan struct{}
	killed  bool          // by us: its end is no news
	rest    time.Duration // before it is started again
	starts  int
	failing bool     // it may end by itself: it has no room to work in
	own     []string // why it ended by itself

	replaced int // how often its member was replaced by a new one
}

// restartAfter is how long an ended daemon stays down, as with systemd.
const restartAfter = 200 * time.Millisecond

// Start keeps the daemon running until Stop.
func (m *Member) Start(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ctx, m.running = context.WithCancel(ctx)
	ended := make(chan struct{})
	m.ended = ended
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			err := m.once(ctx)
			m.mu.Lock()
			rest := max(m.rest, restartAfter)
			if !m.killed && !m.failing && ctx.Err() == nil && m.On() {
				m.own = append(m.own, fmt.Sprintf("%v: %s", err, m.lastWords()))
			}
			m.killed, m.rest = false, 0
			m.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(rest):
			}
		}
	}()
}

func (m *Member) once(ctx context.Context) error {
	log, err := os.OpenFile(m.LogPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	m.mu.Lock()
	m.starts++
	m.mu.Unlock()
	command := m.Command(context.WithoutCancel(ctx), m.Program, "--config", m.Config)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _, _ = m.Signal(controlProgram, unix.SIGKILL) })
	defer stop()
	return command.Wait()
}

// lastWords is the last line that the daemon wrote.
func (m *Member) lastWords() string {
	data, err := os.ReadFile(m.LogPath)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return lines[len(lines)-1]
}

// Kill ends the daemon at once; it is started again after a rest.
func (m *Member) Kill(rest time.Duration) error { return m.end(unix.SIGKILL, rest) }

// Terminate asks the daemon to end, as a restart of its unit would.
func (m *Member) Terminate() error { return m.end(unix.SIGTERM, 0) }

func (m *Member) end(signal unix.Signal, rest time.Duration) error {
	m.mu.Lock()
	m.killed, m.rest = true, rest
	m.mu.Unlock()
	_, err := m.Signal(controlProgram, signal)
	return err
}

// expectEnd: the daemon is about to end through no fault of its own.
func (m *Member) expectEnd() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.killed = true
}

// expectEnds: from now on the daemon may end by itself, or no more.
func (m *Member) expectEnds(may bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failing = may
}

// Stop ends the daemon for good.
func (m *Member) Stop() {
	m.mu.Lock()
	running, ended := m.running, m.ended
	m.mu.Unlock()
	if running == nil {
		return
	}
	running()
	<-ended
}

// OwnEnds is why the daemon ended without being told to.
func (m *Member) OwnEnds() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.own...)
}
