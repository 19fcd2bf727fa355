package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Hangups has SIGHUP sent to the channel it returns instead of ending the
// process. Signals that arrive before they are read become one.
func Hangups() <-chan os.Signal {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	return hangups
}

// Reload calls reload for every hangup until ctx ends, and tells systemd and the
// log what became of it. reload returns the names of the settings it has applied
// and of those that wait for a restart; after an error nothing has changed.
func Reload(ctx context.Context, hangups <-chan os.Signal, logger *slog.Logger, reload func(context.Context) (applied, waiting []string, err error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		ready := status.ready.Load()
		if ready {
			notify(reloading())
		}
		applied, waiting, err := reload(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			logger.Error("the configuration was not read again: it is as it was; correct it and reload once more", "error", err)
			status.remark("reload failed, see the log")
		} else {
			logger.Info("configuration read again", "applied", applied, "waitingForRestart", waiting)
			remark := ""
			if len(waiting) > 0 {
				remark = "waiting for a restart: " + strings.Join(waiting, ", ")
			}
			status.remark(remark)
		}
		if ready {
			notify(systemd.SdNotifyReady)
		}
	}
}

// reloading is what systemd wants to hear when a reload begins: sd_notify(3).
func reloading() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return systemd.SdNotifyReloading
	}
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", systemd.SdNotifyReloading, now.Nano()/1000)
}

// status is the one line that systemctl status shows of this process, to which
// several of its parts contribute.
var status statusLine

type statusLine struct {
	// ready: systemd has heard that the daemon serves, so that it may hear of reloads.
	ready atomic.Bool

	mu         sync.Mutex // guards what follows, and the order in which systemd hears of it
	text, note string
}

// set replaces what the daemon says it does.
func (l *statusLine) set(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = text
	notify("STATUS=" + l.line())
}

// remark replaces what somebody has to know besides; empty for nothing.
func (l *statusLine) remark(note string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note = note
	notify("STATUS=" + l.line())
}

func (l *statusLine) line() string {
	if l.note == "" {
		return l.text
	}
	return l.text + " (" + l.note + ")"
}
