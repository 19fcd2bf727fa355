package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestSystemdHearsOfAReload(t *testing.T) {
	listener := heard(t)
	forget := func() {
		status.ready.Store(false)
		status.text, status.note = "", ""
	}
	forget()
	t.Cleanup(forget)
	hear := func() string {
		buffer := make([]byte, 4096)
		n, err := listener.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		return string(buffer[:n])
	}
	wants := func(texts ...string) {
		t.Helper()
		said := hear()
		for _, text := range texts {
			if !strings.Contains(said, text) {
				t.Errorf("systemd hears %q, not %q", said, text)
			}
		}
	}
	var log bytes.Buffer
	hangups := make(chan os.Signal)
	ctx, cancel := context.WithCancel(t.Context())
	outcomes := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Reload(ctx, hangups, slog.New(slog.NewTextHandler(&log, nil)), func(context.Context) ([]string, []string, error) {
			return []string{"logLevel"}, []string{"port"}, <-outcomes
		})
	}()
	Status("serving")
	wants("STATUS=serving")
	// Who is not ready yet must not say so because of a reload.
	outcomes <- nil
	hangups <- syscall.SIGHUP
	wants("STATUS=serving (waiting for a restart: port)")
	Ready()
	wants("READY=1")
	for _, round := range []struct {
		outcome error
		status  string
	}{{nil, "STATUS=serving (waiting for a restart: port)"}, {errors.New("line 3"), "STATUS=serving (reload failed, see the log)"}} {
		outcomes <- round.outcome
		hangups <- syscall.SIGHUP
		wants("RELOADING=1", "MONOTONIC_USEC=")
		wants(round.status)
		wants("READY=1")
	}
	cancel()
	<-ended
	if !strings.Contains(log.String(), "waitingForRestart=[port]") || !strings.Contains(log.String(), "line 3") {
		t.Errorf("the log says %s", log.String())
	}
}

func TestTheLevelChangesWhileLogging(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logger, level, err := NewLogger(&out, "")
	if err != nil {
		t.Fatal(err)
	}
	child := logger.With("component", "a")
	child.Debug("first")
	if err := level.Set("debug"); err != nil {
		t.Fatal(err)
	}
	child.Debug("second")
	if err := level.Set("loud"); err == nil {
		t.Error("a level that is none was accepted")
	}
	if strings.Contains(out.String(), "first") || !strings.Contains(out.String(), "second") {
		t.Errorf("got %s", out.String())
	}
}
