package shutdown

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	loginName      = "org.freedesktop.login1"
	loginPath      = dbus.ObjectPath("/org/freedesktop/login1")
	loginInterface = "org.freedesktop.login1.Manager"
	// delayFile in logind's configuration raises how long a shutdown may be delayed.
	delayFile = "99-skiff-agent.conf"
)

// logind is the connection to it.
type logind struct {
	bus *dbus.Conn
	end context.CancelFunc
	// signals are closed when the connection breaks.
	signals chan *dbus.Signal
}

// connect reaches logind at a bus address, or at the system's bus when it is empty.
func connect(ctx context.Context, address string) (*logind, error) {
	// The context is the connection's, so it is bounded only until that stands.
	ctx, cancel := context.WithCancel(ctx)
	late := time.AfterFunc(callPatience, cancel)
	defer late.Stop()
	options := []dbus.ConnOption{dbus.WithContext(ctx)}
	var bus *dbus.Conn
	var err error
	if address == "" {
		bus, err = dbus.ConnectSystemBus(options...)
	} else {
		bus, err = dbus.Connect(address, options...)
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("connect to the system's bus: %w", err)
	}
	l := &logind{bus: bus, end: cancel, signals: make(chan *dbus.Signal, 8)}
	bus.Signal(l.signals)
	if err := bus.AddMatchSignalContext(ctx, dbus.WithMatchInterface(loginInterface), dbus.WithMatchMember("PrepareForShutdown"), dbus.WithMatchObjectPath(loginPath)); err != nil {
		l.close()
		return nil, fmt.Errorf("listen to logind: %w", err)
	}
	return l, nil
}

func (l *logind) close() {
	_ = l.bus.Close()
	l.end()
}

// callPatience is how long an answer over the bus may take.
const callPatience = 10 * time.Second

func (l *logind) object() dbus.BusObject { return l.bus.Object(loginName, loginPath) }

// maxDelay is how long logind lets a shutdown be delayed.
func (l *logind) maxDelay() (time.Duration, error) {
	value, err := l.object().GetProperty(loginInterface + ".InhibitDelayMaxUSec")
	if err != nil {
		return 0, fmt.Errorf("ask logind how long a shutdown may be delayed: %w", err)
	}
	microseconds, ok := value.Value().(uint64)
	if !ok {
		return 0, fmt.Errorf("logind's InhibitDelayMaxUSec is %v", value)
	}
	return time.Duration(microseconds) * time.Microsecond, nil
}

// allowDelay makes logind let a shutdown be delayed that long. dir is the folder
// of pieces of its configuration.
func (l *logind) allowDelay(ctx context.Context, dir string, wanted time.Duration) error {
	have, err := l.maxDelay()
	if err != nil || have >= wanted {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("configure logind: %w", err)
	}
	text := fmt.Sprintf("# Made by skiff-agent, for its shutdownGracePeriod.\n[Login]\nInhibitDelayMaxSec=%d\n", int64(wanted/time.Second))
	if err := os.WriteFile(filepath.Join(dir, delayFile), []byte(text), 0o644); err != nil {
		return fmt.Errorf("configure logind: %w", err)
	}
	const hangUp = int32(1)
	systemd := l.bus.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	if err := systemd.CallWithContext(ctx, "org.freedesktop.systemd1.Manager.KillUnit", 0, "systemd-logind.service", "all", hangUp).Err; err != nil {
		return fmt.Errorf("have logind read its configuration: %w", err)
	}
	for wait := 100 * time.Millisecond; ; wait *= 2 {
		if have, err = l.maxDelay(); err != nil || have >= wanted {
			return err
		}
		if wait > reloadPatience {
			return fmt.Errorf("logind delays a shutdown by %s at most, although %s asks for %s", have, filepath.Join(dir, delayFile), wanted)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// reloadPatience is the longest wait between two looks at logind's configuration.
const reloadPatience = 2 * time.Second

// inhibit delays shutdowns until the file it returns is closed.
func (l *logind) inhibit(ctx context.Context) (*os.File, error) {
	var fd dbus.UnixFD
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	call := l.object().CallWithContext(ctx, loginInterface+".Inhibit", 0, "shutdown", "skiff-agent", "The agent ends the pods of this node in order", "delay")
	if err := call.Store(&fd); err != nil {
		return nil, fmt.Errorf("ask logind to delay shutdowns: %w", err)
	}
	return os.NewFile(uintptr(fd), "inhibitor"), nil
}
