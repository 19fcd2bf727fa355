package shutdown

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/prop"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/agent/podstatus"
	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/testenv"
)

func TestPodsAreGroupedByPriority(t *testing.T) {
	t.Parallel()
	entries := []config.ShutdownPriority{{Priority: 100, ShutdownGracePeriodSeconds: 1}, {Priority: 1000, ShutdownGracePeriodSeconds: 2}, {Priority: 10000, ShutdownGracePeriodSeconds: 3}}
	var pods []*v1.Pod
	for _, priority := range []int32{-5, 0, 100, 999, 1000, 10000, 2000000000} {
		pods = append(pods, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(priority)}, Spec: v1.PodSpec{Priority: &priority}})
	}
	var got []string
	for _, g := range groups(entries, pods) {
		var names []string
		for _, pod := range g.pods {
			names = append(names, pod.Name)
		}
		got = append(got, g.grace.String()+": "+strings.Join(names, " "))
	}
	want := []string{"1s: -5 0 100 999", "2s: 1000", "3s: 10000 2000000000"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// login is a logind with a bus of its own.
type login struct {
	t       *testing.T
	address string
	conn    *dbus.Conn
	props   *prop.Properties

	mu sync.Mutex // guards locks, the other ends of inhibitors
	// locks are read until the inhibitor is released.
	locks    []*os.File
	reloaded bool
}

// Inhibit is called over the bus.
func (l *login) Inhibit(what, _, _, mode string) (dbus.UnixFD, *dbus.Error) {
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
func (l *login) KillUnit(unit, _ string, signal int32) *dbus.Error {
	if unit != "systemd-logind.service" || signal != 1 {
		return dbus.MakeFailedError(fmt.Errorf("signal %d to %s", signal, unit))
	}
	l.mu.Lock()
	l.reloaded = true
	l.mu.Unlock()
	l.props.SetMust(loginInterface, "InhibitDelayMaxUSec", uint64(60*time.Second/time.Microsecond))
	return nil
}

func (l *login) inhibitors() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.locks)
}

// released waits until the newest inhibitor is closed.
func (l *login) released() {
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

func (l *login) prepare(begins bool) {
	l.t.Helper()
	if err := l.conn.Emit(loginPath, loginInterface+".PrepareForShutdown", begins); err != nil {
		l.t.Fatal(err)
	}
}

func newLogin(t *testing.T) *login {
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
	l := &login{t: t, address: strings.TrimSpace(address)}
	if l.conn, err = dbus.Connect(l.address); err != nil {
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

// fakePods note how they are ended; they are down when they are told.
type fakePods struct {
	list []*v1.Pod

	mu    sync.Mutex // guards what follows
	ended []string
	down  map[types.UID]bool
}

func (p *fakePods) Pods() []*v1.Pod { return p.list }

func (p *fakePods) Evict(uid types.UID, verdict podstatus.Verdict, grace int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = append(p.ended, fmt.Sprintf("%s %s %q %d", uid, verdict.Reason, verdict.Message, grace))
}

func (p *fakePods) Down(uid types.UID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down[uid]
}

func (p *fakePods) setDown(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down[uid] = true
}

func (p *fakePods) endings() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ended)
}

type quiet struct{}

func (quiet) Eventf(runtime.Object, string, string, string, ...any) {}

func TestAShutdownWaitsForThePodsInOrder(t *testing.T) {
	t.Parallel()
	l := newLogin(t)
	pod := func(name string, priority int32, grace int64) *v1.Pod {
		return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: v1.PodSpec{Priority: &priority, TerminationGracePeriodSeconds: ptr.To(grace)}}
	}
	pods := &fakePods{list: []*v1.Pod{pod("critical", 2000000000, 30), pod("usual", 0, 5), pod("over", 0, 5)}, down: map[types.UID]bool{}}
	pods.list[2].Status.Phase = v1.PodSucceeded
	var mu sync.Mutex
	var told []string
	dir := t.TempDir()
	m := New(Config{
		Priorities: []config.ShutdownPriority{{Priority: 0, ShutdownGracePeriodSeconds: 20}, {Priority: 2000000000, ShutdownGracePeriodSeconds: 10}},
		Pods:       pods, Events: quiet{}, Node: &v1.ObjectReference{}, Logger: slog.New(slog.DiscardHandler), Bus: l.address, LogindDir: dir,
		Tell: func(message string) { mu.Lock(); told = append(told, message); mu.Unlock() },
	})
	done := make(chan struct{})
	go func() { defer close(done); m.Run(t.Context()) }()
	t.Cleanup(func() { <-done })
	testenv.Eventually(t, 20*time.Second, func() bool { return l.inhibitors() == 1 }, "shutdowns are not delayed")
	if text, err := os.ReadFile(filepath.Join(dir, delayFile)); err != nil || !strings.Contains(string(text), "InhibitDelayMaxSec=30\n") {
		t.Errorf("logind's configuration: %q, %v", text, err)
	}

	l.prepare(true)
	const verdict = ` Terminated "Pod was terminated in response to imminent node shutdown." `
	first := []string{"usual" + verdict + "5"}
	testenv.Eventually(t, 20*time.Second, func() bool { return slices.Equal(pods.endings(), first) }, "the usual pod is ended first")
	if !m.Ending() {
		t.Error("pods are still taken on")
	}
	pods.setDown("usual")
	testenv.Eventually(t, 20*time.Second, func() bool { return slices.Equal(pods.endings(), append(first, "critical"+verdict+"10")) }, "then the critical one")
	pods.setDown("critical")
	l.released()

	l.prepare(false)
	testenv.Eventually(t, 20*time.Second, func() bool { return l.inhibitors() == 2 && !m.Ending() }, "after a shutdown that was called off the next is delayed again")
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"node is shutting down", ""}; !slices.Equal(told, want) {
		t.Errorf("the node says %q, want %q", told, want)
	}
}
