package shutdown

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/agent/podstatus"
	"github.com/skiff-run/skiff/agent/shutdown/logindtest"
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
	l := logindtest.New(t)
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
		Pods:       pods, Events: quiet{}, Node: &v1.ObjectReference{}, Logger: slog.New(slog.DiscardHandler), Bus: l.Address, LogindDir: dir,
		Tell: func(message string) { mu.Lock(); told = append(told, message); mu.Unlock() },
	})
	done := make(chan struct{})
	go func() { defer close(done); m.Run(t.Context()) }()
	t.Cleanup(func() { <-done })
	testenv.Eventually(t, 20*time.Second, func() bool { return l.Inhibitors() == 1 }, "shutdowns are not delayed")
	if text, err := os.ReadFile(filepath.Join(dir, delayFile)); err != nil || !strings.Contains(string(text), "InhibitDelayMaxSec=30\n") {
		t.Errorf("logind's configuration: %q, %v", text, err)
	}

	l.PrepareForShutdown(true)
	const verdict = ` Terminated "Pod was terminated in response to imminent node shutdown." `
	first := []string{"usual" + verdict + "5"}
	testenv.Eventually(t, 20*time.Second, func() bool { return slices.Equal(pods.endings(), first) }, "the usual pod is ended first")
	if !m.Ending() {
		t.Error("pods are still taken on")
	}
	pods.setDown("usual")
	testenv.Eventually(t, 20*time.Second, func() bool { return slices.Equal(pods.endings(), append(first, "critical"+verdict+"10")) }, "then the critical one")
	pods.setDown("critical")
	l.Released()

	l.PrepareForShutdown(false)
	testenv.Eventually(t, 20*time.Second, func() bool { return l.Inhibitors() == 2 && !m.Ending() }, "after a shutdown that was called off the next is delayed again")
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"node is shutting down", ""}; !slices.Equal(told, want) {
		t.Errorf("the node says %q, want %q", told, want)
	}
}
