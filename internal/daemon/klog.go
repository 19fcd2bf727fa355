package daemon

import (
	"context"
	"log/slog"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// LogLibraries has what Kubernetes' libraries say through klog go to the logger,
// one level lower where it is information: what they find worth telling at
// verbosity 0 is a detail here. It is called once, before the libraries work.
func LogLibraries(logger *slog.Logger) {
	klog.SetLogger(logr.FromSlogHandler(quiet{logger.Handler()}))
}

// quiet lowers information by one level.
type quiet struct{ slog.Handler }

// Handle implements slog.Handler.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	if r.Level == slog.LevelInfo {
		r.Level = slog.LevelDebug
	}
	if !q.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return q.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }
