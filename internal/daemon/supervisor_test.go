package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// heard is a systemd that listens, and this process its daemon.
func heard(t *testing.T) *net.UnixConn {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	listener, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		listener.Close()
		supervisor.Store(nil)
	})
	t.Setenv("NOTIFY_SOCKET", socket)
	listen()
	if value, set := os.LookupEnv("NOTIFY_SOCKET"); set {
		t.Fatalf("others can speak for the daemon by %q", value)
	}
	return listener
}

// expect reads the next message.
func expect(t *testing.T, listener *net.UnixConn, want string) {
	t.Helper()
	data := make([]byte, 1024)
	n, err := listener.Read(data)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(data[:n]); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSystemdHearsOfEachState(t *testing.T) {
	listener := heard(t)
	Status("starts\nslowly")
	Ready()
	Stopping()
	for _, want := range []string{"STATUS=starts; slowly", "READY=1", "STOPPING=1"} {
		expect(t, listener, want)
	}
}

func TestAnUnchangedStatusIsSentOnce(t *testing.T) {
	listener := heard(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		FollowStatus(ctx, func() string { return "leader" })
	}()
	expect(t, listener, "STATUS=leader")
	cancel()
	<-ended
	Ready()
	expect(t, listener, "READY=1")
}

func TestTheWatchdogIsAnsweredWhileTheDaemonIsAlive(t *testing.T) {
	listener := heard(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", "")
	ctx, cancel := context.WithCancel(t.Context())
	var hangs atomic.Bool
	hung := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Watchdog(ctx, slog.New(slog.DiscardHandler), func(context.Context) error {
			if !hangs.Load() {
				return nil
			}
			select {
			case hung <- struct{}{}:
			case <-ctx.Done():
			}
			return errors.New("hangs")
		})
	}()
	expect(t, listener, "WATCHDOG=1")
	expect(t, listener, "WATCHDOG=1")
	hangs.Store(true)
	<-hung
	drain(t, listener)
	for range 3 {
		<-hung
	}
	cancel()
	<-ended
	if answers := drain(t, listener); answers > 0 {
		t.Errorf("a daemon that hung answered %d times", answers)
	}
}

// drain reads what was sent and says how many messages it was.
func drain(t *testing.T, listener *net.UnixConn) (messages int) {
	t.Helper()
	if err := listener.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := listener.Read(make([]byte, 64)); err != nil {
			return messages
		}
		messages++
	}
}

func TestWithoutSystemdNothingIsAsked(t *testing.T) {
	FollowStatus(t.Context(), func() string {
		t.Error("the status was asked for")
		return ""
	})
	Ready()
}
