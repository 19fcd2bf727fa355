package raftstore

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestComplaintsOfLibrariesAreRationed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := newHCLog(slog.New(slog.NewTextHandler(&b, nil)))
		for range 200 {
			log.Error("failed to heartbeat to", "peer", "a", "error", "refused")
			log.Error("failed to heartbeat to", "peer", "b", "error", "refused")
			log.Warn("something else")
			log.Info("raft speaks of itself")
			time.Sleep(300 * time.Millisecond)
		}
		// A minute: each is said at its start and once again after half of it.
		for text, want := range map[string]int{"peer=a": 2, "peer=b": 2, "something else": 2, "speaks of itself": 0} {
			if got := strings.Count(b.String(), text); got != want {
				t.Errorf("%q was said %d times, want %d:\n%s", text, got, want, b.String())
			}
		}
		if !strings.Contains(b.String(), "heldBack=99") {
			t.Errorf("not told how many were held back:\n%s", b.String())
		}
	})
}
