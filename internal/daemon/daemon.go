// Package daemon holds what the main functions of the three daemons and the
// command line have in common: structured logging to standard error or systemd's
// journal, shutdown by signal, readiness towards systemd, and one clear line when
// they fail.
//
// Of Kubernetes it knows only that pods have namespaces and libraries log through
// klog, and nothing of what a daemon does.
package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
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
	listen()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		complain(name, err)
		os.Exit(exitCode(err))
	}
}

// Level is what a daemon logs from: it may change while it runs.
type Level struct{ variable slog.LevelVar }

// Set changes the level to one of debug, info, warn and error; empty is info.
func (l *Level) Set(level string) error {
	var parsed slog.Level
	if err := parsed.UnmarshalText([]byte(strings.ToUpper(cmp.Or(level, "info")))); err != nil {
		return fmt.Errorf("logLevel: %q is not one of debug, info, warn, error", level)
	}
	l.variable.Set(parsed)
	return nil
}

// NewLogger returns the logger of a daemon at a level, one of debug, info, warn
// and error, and what changes the level later. It writes text lines to w; when that
// is a standard error which systemd has connected to its journal, it writes to the
// journal itself, where the attributes become fields.
func NewLogger(w io.Writer, level string) (*slog.Logger, *Level, error) {
	l := &Level{}
	if err := l.Set(level); err != nil {
		return nil, nil, err
	}
	if !journals(w) {
		return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: &l.variable})), l, nil
	}
	// The journal keeps the time of a line on standard error too.
	return slog.New(newJournalHandler(slog.NewTextHandler(w, &slog.HandlerOptions{Level: &l.variable, ReplaceAttr: withoutTime}))), l, nil
}

func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}
