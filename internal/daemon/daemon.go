// Package daemon holds what the main functions of the three daemons and the
// command line have in common: structured logging to standard error or systemd's
// journal, shutdown by signal, readiness towards systemd, and one clear line when
// they fail.
//
// Of Kubernetes it knows only that pods have namespaces and libraries log through
// klog, and nothing of what a daemon does.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
)

// ExitFinal is the exit code of a daemon that starting again does not help:
// whoever supervises it leaves it ended. The unit files name the number too.
const ExitFinal = 100

// finalError is an error that starting again does not help.
type finalError struct{ error }

// Unwrap returns the error itself.
func (e finalError) Unwrap() error { return e.error }

// Final marks an error that starting again does not help: somebody has to do
// what it says first.
func Final(err error) error { return finalError{err} }

// exitCode is 1, or ExitFinal for an error that Final has marked.
func exitCode(err error) int {
	var final finalError
	if errors.As(err, &final) {
		return ExitFinal
	}
	return 1
}

// Run calls run with a context that ends on SIGINT or SIGTERM and exits the
// process: 0 when run returns nil or the context's cancellation, otherwise 1, or
// ExitFinal for an error marked by Final, after printing "name: error" to
// standard error. A second signal ends the process at once.
func Run(name string, run func(ctx context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		complain(name, err)
		os.Exit(exitCode(err))
	}
}

// NewLogger returns the logger of a daemon at a level, one of debug, info, warn
// and error. It writes text lines to w; when that is a standard error which
// systemd has connected to its journal, it writes to the journal itself, where
// the attributes become fields.
func NewLogger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if level == "" {
		level = "info"
	}
	if err := l.UnmarshalText([]byte(strings.ToUpper(level))); err != nil {
		return nil, fmt.Errorf("logLevel: %q is not one of debug, info, warn, error", level)
	}
	if !journals(w) {
		return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})), nil
	}
	// The journal keeps the time of a line on standard error too.
	return slog.New(newJournalHandler(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l, ReplaceAttr: withoutTime}))), nil
}

func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// Ready tells the supervisor that the daemon serves: systemd when NOTIFY_SOCKET
// is set; otherwise it does nothing.
func Ready() { notify(systemd.SdNotifyReady) }

// Status replaces the one-line status that systemctl status shows.
func Status(status string) { notify("STATUS=" + strings.ReplaceAll(status, "\n", "; ")) }

// statusEvery is how often the status line may change: systemd tells everybody
// who listens, and a person reads no faster.
const statusEvery = 5 * time.Second

// FollowStatus keeps the one-line status that systemctl status shows at what
// describe returns, until ctx ends. Nothing is sent while it stays the same, and
// nothing is asked when nobody listens.
func FollowStatus(ctx context.Context, describe func() string) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	ticker := time.NewTicker(statusEvery)
	defer ticker.Stop()
	for last := ""; ; {
		if now := describe(); now != last {
			Status(now)
			last = now
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Stopping tells systemd that an orderly shutdown has begun.
func Stopping() { notify(systemd.SdNotifyStopping) }

func notify(state string) {
	// An error only means that nobody listens.
	_, _ = systemd.SdNotify(false, state)
}

// Watchdog answers systemd's watchdog while alive returns nil, twice as often as
// the unit asks for. It returns when ctx ends, and at once when the unit has no
// watchdog. alive has to end with its context.
func Watchdog(ctx context.Context, logger *slog.Logger, alive func(context.Context) error) {
	interval, err := systemd.SdWatchdogEnabled(false)
	if err != nil || interval <= 0 {
		return
	}
	ticker := time.NewTicker(interval / 2)
	defer ticker.Stop()
	for {
		check, cancel := context.WithTimeout(ctx, interval/2)
		err := alive(check)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			logger.Error("this daemon hangs; the watchdog is not answered", "error", err)
		default:
			notify(systemd.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
