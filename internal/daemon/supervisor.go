package daemon

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
)

// supervisor is the socket by which systemd listens to this process, nil when
// nobody does. A process has one.
var supervisor atomic.Pointer[net.UnixAddr]

// listen takes the socket over from the environment, so that nobody else speaks
// for the daemon: Kubernetes' API server library says that it is ready when it
// only begins, and programs that the daemon starts would inherit it.
func listen() {
	const variable = "NOTIFY_SOCKET"
	if path := os.Getenv(variable); path != "" {
		supervisor.Store(&net.UnixAddr{Name: path, Net: "unixgram"})
	}
	_ = os.Unsetenv(variable) // it fails for names that are none
	inherited()
}

// notify sends a state to systemd; an error only means that it has gone.
func notify(state string) {
	address := supervisor.Load()
	if address == nil {
		return
	}
	connection, err := net.DialUnix(address.Net, nil, address)
	if err != nil {
		return
	}
	defer connection.Close()
	_, _ = connection.Write([]byte(state))
}

// Ready tells systemd that the daemon serves.
func Ready() {
	status.ready.Store(true)
	notify(systemd.SdNotifyReady)
}

// Status replaces the one-line status that systemctl status shows.
func Status(text string) { status.set(strings.ReplaceAll(text, "\n", "; ")) }

// statusEvery is how often the status line may change: systemd tells everybody
// who listens, and a person reads no faster.
const statusEvery = 5 * time.Second

// FollowStatus keeps the one-line status that systemctl status shows at what
// describe returns, until ctx ends. Nothing is sent while it stays the same, and
// nothing is asked when nobody listens.
func FollowStatus(ctx context.Context, describe func() string) {
	if supervisor.Load() == nil {
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
