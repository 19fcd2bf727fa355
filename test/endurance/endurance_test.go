package endurance

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/cluster"
)

var (
	length  = flag.Duration("length", 40*time.Second, "how long the node is mistreated")
	workers = flag.Int("workers", 5, "how many pods are made and deleted at a time")
	seed    = flag.Uint64("seed", uint64(time.Now().UnixNano()), "what decides the kills and the pods")
)

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if err := cluster.Clean(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// counter prints numbered lines until it is told to stop.
const counter = "i=0; while [ ! -e /tmp/stop ]; do echo count $i; i=$((i+1)); sleep 0.02; done; echo end; sleep 3600"

// TestPodsEndureTheDeathsOfDaemons is the soak of a node: `make soak-node`
// runs it for ten minutes.
func TestPodsEndureTheDeathsOfDaemons(t *testing.T) {
	n := newNode(t, "skiff-endure", nil)
	ctx := t.Context()
	t.Logf("seed %d", *seed)
	settings := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: map[string]string{"colour": "blue"}}
	if _, err := n.api.CoreV1().ConfigMaps(metav1.NamespaceDefault).Create(ctx, settings, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	// Pods that nobody touches.
	steady := map[string]corev1.PodSpec{}
	for _, kind := range kinds {
		if kind.name != "crashing" {
			steady["steady-"+kind.name] = kind.spec()
		}
	}
	count := sleeper("count")
	count.Command = []string{"sh", "-c", counter}
	steady["steady-counter"] = corev1.PodSpec{Containers: []corev1.Container{count}}
	for name, spec := range steady {
		if err := n.create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}); err != nil {
			t.Fatal(err)
		}
	}
	first := map[string][]string{} // their containers
	spared := map[string]bool{}
	for name := range steady {
		testenv.Eventually(t, 90*time.Second, func() bool { pod := n.pod(ctx, name); return pod != nil && isReady(pod) }, "pod %s is not Ready", name)
		pod := n.pod(ctx, name)
		first[name] = containersOf(pod)
		for _, container := range first[name] {
			id := strings.Fields(container)[1]
			spared[strings.TrimPrefix(id, "containerd://")] = true
		}
		// The process that a shared process table belongs to is named after the sandbox.
		spared[string(pod.UID)] = true
	}
	for _, sandbox := range n.sandboxes(t) {
		spared[sandbox] = true
	}
	before, err := n.holdings(ctx)
	if err != nil {
		t.Fatal(err)
	}
	goroutines, err := n.goroutines(ctx)
	if err != nil {
		t.Fatal(err)
	}
	files, err := n.files()
	if err != nil {
		t.Fatal(err)
	}

	c := &churn{node: n}
	k := newKiller(n, *seed, spared)
	during, stop := context.WithTimeout(ctx, *length)
	defer stop()
	var group sync.WaitGroup
	errs := make([]error, *workers+1)
	for i := range *workers {
		group.Go(func() { errs[i] = c.run(during, i, *seed) })
	}
	group.Go(func() { errs[*workers] = k.run(during) })
	group.Wait()
	for victim, count := range k.kills {
		t.Logf("killed %s %d times", victim, count.Load())
	}
	t.Logf("%d pods made, %d gone", c.made.Load(), c.gone.Load())
	if err := errors.Join(errs...); err != nil {
		t.Logf("agent's log ends:\n%s", n.daemonLog("agent", 8000))
		t.Fatal(err)
	}
	if c.made.Load() < 5 {
		t.Errorf("only %d pods were made: that is no churn", c.made.Load())
	}

	testenv.Eventually(t, time.Minute, func() bool { return n.ready(ctx) }, "the node is not Ready again")
	for name, containers := range first {
		pod := n.pod(ctx, name)
		if pod == nil || !slices.Equal(containersOf(pod), containers) {
			t.Errorf("pod %s had the containers %v, and now: %s", name, containers, describe(pod))
		}
		testenv.Eventually(t, time.Minute, func() bool { pod := n.pod(ctx, name); return pod != nil && isReady(pod) }, "pod %s is not Ready any more", name)
	}
	n.countedAll(t)

	var left []string
	defer func() {
		if t.Failed() {
			t.Logf("left behind:\n%s", strings.Join(left, "\n"))
		}
	}()
	testenv.Eventually(t, 2*time.Minute, func() bool {
		after, err := n.holdings(ctx)
		if err != nil {
			left = []string{err.Error()}
			return false
		}
		left = more(before, after)
		slices.Sort(left)
		return len(left) == 0
	}, "something stays of pods that are gone")
	var now, open int
	testenv.Eventually(t, time.Minute, func() bool {
		now, err = n.goroutines(ctx)
		return err == nil && now <= goroutines+10
	}, "the agent had %d goroutines before and has more now", goroutines)
	testenv.Eventually(t, time.Minute, func() bool {
		open, err = n.files()
		return err == nil && open <= files+10
	}, "the agent had %d files open before and has more now", files)
	t.Logf("agent: %d goroutines before, %d after; %d files before, %d after", goroutines, now, files, open)
}

// sandboxes are the IDs of the pod sandboxes that the agent keeps records of.
func (n *node) sandboxes(t *testing.T) []string {
	t.Helper()
	said, err := n.Run(t.Context(), "sh", "-c", "find /run/skiff /var/lib/skiff -path '*sandboxes/*' -prune | sed 's|.*/||; s|[.].*||' | sort -u")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(said)
}

// containersOf are the name, ID and restarts of each container of a pod.
func containersOf(pod *corev1.Pod) []string {
	var list []string
	for _, status := range append(slices.Clone(pod.Status.InitContainerStatuses), pod.Status.ContainerStatuses...) {
		list = append(list, fmt.Sprintf("%s %s %d", status.Name, status.ContainerID, status.RestartCount))
	}
	return list
}

// countedAll looks for lines that the counter wrote and its log has not.
func (n *node) countedAll(t *testing.T) {
	t.Helper()
	pod := n.pod(t.Context(), "steady-counter")
	if pod == nil {
		t.Fatal("the counter is gone")
	}
	if _, err := n.fleet.Kubectl(t.Context(), n.Host, "exec", "steady-counter", "--", "touch", "/tmp/stop"); err != nil {
		t.Fatal(err)
	}
	var lines []string
	testenv.Eventually(t, time.Minute, func() bool {
		var err error
		lines, err = n.logLines(pod, "count")
		return err == nil && len(lines) > 0 && lines[len(lines)-1] == "end"
	}, "the counter does not end, or its last line is missing")
	for i, line := range lines[:len(lines)-1] {
		if want := fmt.Sprintf("count %d", i); line != want {
			t.Fatalf("line %d of %d of the counter's log is %q, want %q", i, len(lines), line, want)
		}
	}
	t.Logf("the counter wrote %d lines, none is missing", len(lines)-1)
	if len(lines) < 100 {
		t.Errorf("the counter wrote only %d lines", len(lines))
	}
}
