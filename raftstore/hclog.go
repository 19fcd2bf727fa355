package raftstore

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// newHCLog lets the libraries log through slog. Their Info is our Debug: they
// tell of every snapshot, term and truncation, and Info shall be quiet. Their
// complaints are rationed: raft complains of a member that is away with each
// message it cannot send.
func newHCLog(logger *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Off})
	l.RegisterSink(&slogSink{logger: logger, last: map[complaint]*uttered{}})
	return l
}

const (
	// complainAgain is how long the same complaint is not repeated.
	complainAgain = 30 * time.Second
	// complaintsKept bounds how many different ones are remembered.
	complaintsKept = 100
)

// complaint is what makes two of them the same: text and whom it is about.
type complaint struct{ message, about string }

// uttered is when a complaint was made and how often it was held back since.
type uttered struct {
	at   time.Time
	held int
}

type slogSink struct {
	logger *slog.Logger

	mu   sync.Mutex // guards last
	last map[complaint]*uttered
}

// Accept implements hclog.SinkAdapter.
func (s *slogSink) Accept(_ string, level hclog.Level, message string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Warn:
		to = slog.LevelWarn
	case hclog.Error:
		to = slog.LevelError
	}
	if !s.logger.Enabled(context.Background(), to) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = f[1:]
		}
	}
	if to > slog.LevelDebug {
		held, speak := s.ration(complaint{message, about(args)}, time.Now())
		if !speak {
			return
		}
		if held > 0 {
			args = append(args, "heldBack", held)
		}
	}
	s.logger.Log(context.Background(), to, message, args...)
}

// about finds the member a complaint is about, so that two silent members are
// both told of.
func about(args []any) string {
	for i := 0; i+1 < len(args); i += 2 {
		switch key, _ := args[i].(string); key {
		case "peer", "target", "server-id", "from", "candidate":
			return slog.AnyValue(args[i+1]).String()
		}
	}
	return ""
}

// ration reports whether to make a complaint now and how many like it were held
// back since the last one.
func (s *slogSink) ration(c complaint, now time.Time) (held int, speak bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.last[c]
	if before != nil && now.Sub(before.at) < complainAgain {
		before.held++
		return 0, false
	}
	if before == nil && len(s.last) >= complaintsKept {
		clear(s.last)
	}
	if before != nil {
		held = before.held
	}
	s.last[c] = &uttered{at: now}
	return held, true
}
