package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/skiff-run/skiff/internal/testenv"
)

// entry is what the journal got.
type entry struct {
	message  string
	priority journal.Priority
	fields   map[string]string
}

// recorded returns a logger whose journal is the entry, and what falls back.
func recorded(sendErr error) (*slog.Logger, *entry, *bytes.Buffer) {
	var last entry
	var fallback bytes.Buffer
	h := newJournalHandler(slog.NewTextHandler(&fallback, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	h.fields = map[string]string{}
	h.send = func(message string, priority journal.Priority, fields map[string]string) error {
		last = entry{message, priority, maps.Clone(fields)}
		return sendErr
	}
	return slog.New(h), &last, &fallback
}

func TestALineIsForPeopleAndItsAttributesAreFields(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		log  func(*slog.Logger)
		want entry
	}{
		"an attribute of each kind": {
			func(l *slog.Logger) {
				l.Info("took it", "podCIDRs", []string{"10.0.0.0/24"}, "wait", 1500*time.Millisecond, "n", 3, "at", time.Unix(0, 0).UTC(), "error", errors.New("no way"))
			},
			entry{"took it podCIDRs=[10.0.0.0/24] wait=1.5s n=3 at=1970-01-01T00:00:00.000Z error=\"no way\"", journal.PriInfo, map[string]string{
				"SKIFF_POD_CIDRS": "[10.0.0.0/24]", "SKIFF_WAIT": "1.5s", "SKIFF_N": "3", "SKIFF_AT": "1970-01-01T00:00:00Z", "SKIFF_ERROR": "no way",
			}},
		},
		"a pod by its name and namespace": {
			func(l *slog.Logger) { l.Warn("gone", "pod", "web", "namespace", "default") },
			entry{"gone pod=web namespace=default", journal.PriWarning, map[string]string{"SKIFF_POD": "default/web", "SKIFF_NAMESPACE": "default"}},
		},
		"a pod by both in one": {
			func(l *slog.Logger) { l.Error("gone", "pod", "default/web") },
			entry{"gone pod=default/web", journal.PriErr, map[string]string{"SKIFF_POD": "default/web", "SKIFF_NAMESPACE": "default"}},
		},
		"attributes that every line has": {
			func(l *slog.Logger) { l.With("component", "store").Info("opened", "revision", 7) },
			entry{"opened component=store revision=7", journal.PriInfo, map[string]string{"SKIFF_COMPONENT": "store", "SKIFF_REVISION": "7"}},
		},
		"groups": {
			func(l *slog.Logger) {
				l.With("a", 1).WithGroup("g").With("b", 2).Info("grouped", slog.Group("h", "c", 3))
			},
			entry{"grouped a=1 g.b=2 g.h.c=3", journal.PriInfo, map[string]string{"SKIFF_A": "1", "SKIFF_G_B": "2", "SKIFF_G_H_C": "3"}},
		},
		"no attributes": {
			func(l *slog.Logger) { l.Info("plain") },
			entry{"plain", journal.PriInfo, nil},
		},
		"names the journal would not take": {
			func(l *slog.Logger) {
				l.Info("odd", "käse/laib", "x", strings.Repeat("long", 40), "y")
			},
			entry{"odd käse/laib=x " + strings.Repeat("long", 40) + "=y", journal.PriInfo, map[string]string{
				"SKIFF_K_SE_LAIB": "x", ("SKIFF_" + strings.Repeat("LONG", 40))[:64]: "y",
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logger, last, fallback := recorded(nil)
			tc.log(logger)
			if last.message != tc.want.message || last.priority != tc.want.priority || !maps.Equal(last.fields, tc.want.fields) {
				t.Errorf("got  %+v\nwant %+v", *last, tc.want)
			}
			if fallback.Len() > 0 {
				t.Errorf("standard error got %q too", fallback)
			}
		})
	}
}

func TestWhatTheJournalDoesNotTakeGoesToStandardError(t *testing.T) {
	t.Parallel()
	logger, _, fallback := recorded(errors.New("no socket"))
	logger.With("component", "store").WithGroup("g").Warn("opened", "revision", 7)
	if want := "level=WARN msg=opened component=store g.revision=7\n"; fallback.String() != want {
		t.Errorf("got %q, want %q", fallback, want)
	}
}

func TestADisabledLevelIsNotWritten(t *testing.T) {
	t.Parallel()
	logger, last, fallback := recorded(nil)
	logger.Debug("detail")
	if last.message != "" || fallback.Len() > 0 {
		t.Errorf("got %+v, %q", *last, fallback)
	}
}

// inJournalTest tells the test's second process that it has a /run of its own.
const inJournalTest = "SKIFF_IN_JOURNAL_TEST"

func TestTheJournalsSocketGetsNativeMessages(t *testing.T) {
	if os.Getenv(inJournalTest) == "" {
		testenv.RequireRoot(t)
		// The path of the socket is fixed, so it needs a /run of its own.
		again := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		again.Env = append(os.Environ(), inJournalTest+"=1")
		again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if output, err := again.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, output)
		}
		return
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	const socket = "/run/systemd/journal/socket"
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var stat syscall.Stat_t
	if err := syscall.Fstat(2, &stat); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", stat.Dev, stat.Ino))
	logger, _, err := NewLogger(os.Stderr, "info")
	if err != nil {
		t.Fatal(err)
	}
	logger.Warn("sandbox gone", "pod", "web", "namespace", "default", "error", "first\nsecond")
	complain("skiff-agent", errors.New("cannot go on"))
	for _, wanted := range [][]string{
		{"PRIORITY=4\n", "MESSAGE=sandbox gone pod=web namespace=default error=\"first\\nsecond\"\n", "SKIFF_POD=default/web\n",
			"SKIFF_ERROR\n\x0c\x00\x00\x00\x00\x00\x00\x00first\nsecond\n", "SYSLOG_IDENTIFIER=daemon.test\n"},
		{"PRIORITY=3\n", "MESSAGE=skiff-agent: cannot go on\n", "SYSLOG_IDENTIFIER=skiff-agent\n"},
	} {
		data := make([]byte, 4096)
		n, err := listener.Read(data)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wanted {
			if !strings.Contains(string(data[:n]), want) {
				t.Errorf("%q is missing in\n%q", want, data[:n])
			}
		}
	}
	// A standard error that systemd did not connect, such as a file of a shell's.
	t.Setenv("JOURNAL_STREAM", "1:1")
	if journals(os.Stderr) {
		t.Error("a standard error that is not the journal's is taken for it")
	}
}
