package podstate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestTheLastWordOfAContainer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	long := strings.Repeat("x", 3000) + strings.Repeat("y", 3000)
	spoken, silent, tooLong := write("spoken", "out of disk"), write("silent", ""), write("long", long)
	log := write("log", "2026-01-01T00:00:00Z stdout F starting\n2026-01-01T00:00:01Z stderr P brok\n2026-01-01T00:00:01Z stderr F en\n")
	fallback := v1.TerminationMessageFallbackToLogsOnError
	for name, test := range map[string]struct {
		container Container
		want      string
	}{
		"what it wrote":                      {Container{State: Exited, Record: Record{MessageFile: spoken}}, "out of disk"},
		"what it wrote, behind the reason":   {Container{State: Exited, Message: "start failed", Record: Record{MessageFile: spoken}}, "start failed: out of disk"},
		"of a long text the end":             {Container{State: Exited, Record: Record{MessageFile: tooLong}}, long[len(long)-4096:]},
		"nothing":                            {Container{State: Exited, ExitCode: 1, LogPath: log, Record: Record{MessageFile: silent}}, ""},
		"the log, when asked for":            {Container{State: Exited, ExitCode: 1, LogPath: log, Record: Record{MessageFile: silent, MessagePolicy: fallback}}, "starting\nbroken\n"},
		"the log when the file is gone":      {Container{State: Exited, ExitCode: 1, LogPath: log, Record: Record{MessageFile: filepath.Join(dir, "no"), MessagePolicy: fallback}}, "starting\nbroken\n"},
		"no log after success":               {Container{State: Exited, LogPath: log, Record: Record{MessageFile: silent, MessagePolicy: fallback}}, ""},
		"no log of what never ran":           {Container{State: Exited, ExitCode: 128, Reason: cannotRun, LogPath: log, Record: Record{MessagePolicy: fallback}}, ""},
		"the file before the log":            {Container{State: Exited, ExitCode: 1, LogPath: log, Record: Record{MessageFile: spoken, MessagePolicy: fallback}}, "out of disk"},
		"nothing while it runs":              {Container{State: Running, Record: Record{MessageFile: spoken}}, ""},
		"nothing that cannot be read":        {Container{State: Exited, Record: Record{MessageFile: dir}}, "Error on reading termination log " + dir + ": read " + dir + ": is a directory"},
		"no log behind what cannot be read ": {Container{State: Exited, ExitCode: 1, LogPath: log, Record: Record{MessageFile: dir, MessagePolicy: fallback}}, "Error on reading termination log " + dir + ": read " + dir + ": is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := test.container
			if readTerminationMessage(&c); c.Message != test.want {
				t.Errorf("got %q, want %q", c.Message, test.want)
			}
		})
	}
}
