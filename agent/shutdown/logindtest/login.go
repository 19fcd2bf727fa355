// Package logindtest is a logind on a private bus, so that tests shut down a machine
// that is none. Only tests use it.
package logindtest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/prop"

	"github.com/skiff-run/skiff/internal/testenv"
)

const (
	loginName      = "org.freedesktop.login1"
	loginPath      = dbus.ObjectPath("/org/freedesktop/login1")
	loginInterface = "org.freedesktop.login1.Manager"
)

// Login is a logind with a bus of its own, for one test.
type Login struct {
	t testing.TB
	// Address of the bus.
	Address string
	conn    *dbus.Conn
	props   *prop.Properties

	mu sync.Mutex // guards locks, the other ends of inhibitors
	// locks are read until the inhibitor is released.
	locks    []*os.File
	reloaded bool
}

// Inhibit is called over the bus.
func (l *Login) Inhibit(what, _, _, mode string) (dbus.UnixFD, *dbus.Error) {
	if what != "shutdown" || mode != "delay" {
		return 0, dbus.MakeFailedError(fmt.Errorf("inhibits %s by %s", what, mode))
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, dbus.MakeFailedError(err)
	}
	l.mu.Lock()
	l.locks = append(l.locks, r)
	l.mu.Unlock()
	// The message carries a copy; ours must not keep the pipe open.
	time.AfterFunc(time.Second, func() { w.Close() })
	return dbus.UnixFD(w.Fd()), nil
}

// KillUnit is called over the bus: logind reads its configuration.
func (l *Login) KillUnit(unit, _ string, signal int32) *dbus.Error {
	if unit != "systemd-logind.service" || signal != 1 {
		return dbus.MakeFailedError(fmt.Errorf("signal %d to %s", signal, unit))
	}
	l.mu.Lock()
	l.reloaded = true
	l.mu.Unlock()
	l.props.SetMust(loginInterface, "InhibitDelayMaxUSec", uint64(60*time.Second/time.Microsecond))
	return nil
}

// Inhibitors counts those that were asked for.
func (l *Login) Inhibitors() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.locks)
}

// Released waits until the newest inhibitor is closed.
func (l *Login) Released() {
	l.t.Helper()
	l.mu.Lock()
	lock := l.locks[len(l.locks)-1]
	l.mu.Unlock()
	done := make(chan struct{})
	go func() {
		_, _ = lock.Read(make([]byte, 1))
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		l.t.Fatal("the shutdown is still delayed")
	}
}

// PrepareForShutdown tells that a shutdown begins, or that it was called off.
func (l *Login) PrepareForShutdown(begins bool) {
	l.t.Helper()
	if err := l.conn.Emit(loginPath, loginInterface+".PrepareForShutdown", begins); err != nil {
		l.t.Fatal(err)
	}
}

// New starts a bus with a logind, which lets shutdowns be delayed by 5 s until it reads
// its configuration anew, by 60 s then. Both end with the test.
func New(t testing.TB) *Login {
	t.Helper()
	testenv.RequireProgram(t, "dbus-daemon")
	dir := t.TempDir()
	configuration := filepath.Join(dir, "bus.conf")
	text := fmt.Sprintf(`<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=%s/bus</listen>
<auth>EXTERNAL</auth><policy context="default"><allow user="*"/><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>`, dir)
	if err := os.WriteFile(configuration, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command("dbus-daemon", "--config-file="+configuration, "--print-address", "--nofork")
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = daemon.Process.Kill(); _ = daemon.Wait() })
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	l := &Login{t: t, Address: strings.TrimSpace(address)}
	if l.conn, err = dbus.Connect(l.Address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.conn.Close() })
	l.props, err = prop.Export(l.conn, loginPath, prop.Map{loginInterface: {"InhibitDelayMaxUSec": {Value: uint64(5 * time.Second / time.Microsecond)}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string][2]string{loginName: {string(loginPath), loginInterface}, "org.freedesktop.systemd1": {"/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"}} {
		if err := l.conn.Export(l, dbus.ObjectPath(at[0]), at[1]); err != nil {
			t.Fatal(err)
		}
		if _, err := l.conn.RequestName(name, dbus.NameFlagDoNotQueue); err != nil {
			t.Fatal(err)
		}
	}
	return l
}
