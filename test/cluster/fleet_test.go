package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/fleet"
	"github.com/skiff-run/skiff/test/host"
)

// TestThreeControlMachinesAndAWorker is a small installation from its founding
// to its end: machines join, pods run on all of them and reach each other, the
// leader is killed under a writer, a node's cable is pulled.
func TestThreeControlMachinesAndAWorker(t *testing.T) {
	f := NewFleet(t, "skiff-fleet")
	ctx := t.Context()
	before := map[*host.Host]string{}
	for _, name := range []string{"host1", "host2", "host3", "worker1"} {
		h, err := f.Add(name)
		if err != nil {
			t.Fatal(err)
		}
		before[h] = f.traces(h)
	}
	first, worker := f.Hosts[0], f.Hosts[3]
	f.must(f.Found(ctx, first))
	for _, h := range f.Hosts[1:3] {
		f.must(f.Join(ctx, h, first, fleet.Control))
	}
	f.must(f.Join(ctx, worker, first, fleet.Worker))
	nodes := func(ready int) func(string) bool {
		return func(said string) bool { return strings.Count(said, " Ready ") == ready }
	}
	f.eventually(20*time.Second, first, nodes(4), "get", "nodes", "--no-headers")

	f.kubectl(first, "create", "deployment", "web", "--image=skiff/web", "--replicas=8")
	f.kubectl(first, "expose", "deployment", "web", "--port=80", "--target-port=8080")
	f.kubectl(first, "rollout", "status", "deployment/web", "--timeout=90s")
	t.Run("pods run on every node and reach each other", func(t *testing.T) {
		f := f.with(t)
		pods := strings.Fields(f.kubectl(first, "get", "pods", "-l=app=web", `-o=jsonpath={range .items[*]}{.metadata.name}/{.status.podIP}/{.spec.nodeName}{"\n"}{end}`))
		on := map[string]string{} // a pod of each node
		for _, pod := range pods {
			fields := strings.Split(pod, "/")
			on[fields[2]] = pod
		}
		if len(on) != 4 {
			t.Fatalf("pods on %d of 4 nodes: %v", len(on), pods)
		}
		for node := range on {
			name := "probe-" + node
			f.kubectl(first, "run", name, "--image=busybox", "--overrides", fmt.Sprintf(`{"spec":{"nodeName":%q}}`, node), "--", "sleep", "3600")
		}
		for node := range on {
			f.kubectl(first, "wait", "--for=condition=Ready", "pod/probe-"+node, "--timeout=60s")
			for _, pod := range on {
				fields := strings.Split(pod, "/")
				f.eventually(20*time.Second, first, func(said string) bool { return strings.TrimSpace(said) == fields[0] },
					"exec", "probe-"+node, "--", "wget", "-q", "-O-", "http://"+fields[1]+":8080")
			}
			f.eventually(20*time.Second, first, func(said string) bool { return strings.HasPrefix(said, "web-") },
				"exec", "probe-"+node, "--", "wget", "-q", "-O-", "http://web")
		}
	})
	t.Run("the service answers on every host", func(t *testing.T) {
		f := f.with(t)
		address := f.kubectl(first, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
		for _, h := range f.Hosts {
			testenv.Eventually(t, 20*time.Second, func() bool {
				said, err := h.Run(ctx, "curl", "-s", "-m", "2", "http://"+address)
				return err == nil && strings.HasPrefix(said, "web-")
			}, "the service does not answer on %s", h.Name)
		}
	})
	t.Run("the leader is killed under a writer", func(t *testing.T) { f.with(t).leaderKilled(t) })
	t.Run("a node's cable is pulled", func(t *testing.T) {
		f := f.with(t)
		if err := f.Unplug(worker); err != nil {
			t.Fatal(err)
		}
		f.eventually(60*time.Second, first, func(said string) bool { return strings.Contains(said, "NotReady") }, "get", "node", worker.Name, "--no-headers")
		elsewhere := func(said string) bool {
			return strings.Count(said, "Running") >= 8 && strings.Count(said, "1/1") >= 8
		}
		f.eventually(90*time.Second, first, func(said string) bool {
			running := 0
			for _, line := range strings.Split(said, "\n") {
				if strings.Contains(line, " Running ") && strings.Contains(line, "1/1") && !strings.Contains(line, " "+worker.Name+" ") {
					running++
				}
			}
			return running == 8
		}, "get", "pods", "-l=app=web", "-o=wide", "--no-headers")
		if err := f.Plug(worker); err != nil {
			t.Fatal(err)
		}
		f.eventually(60*time.Second, first, nodes(4), "get", "nodes", "--no-headers")
		f.eventually(60*time.Second, first, func(said string) bool {
			return elsewhere(said) && strings.Count(said, "\n") == 8
		}, "get", "pods", "-l=app=web", "--no-headers")
	})
	t.Run("down leaves nothing on any host", func(t *testing.T) {
		f := f.with(t)
		for _, h := range f.Hosts {
			f.must(f.Skiff(ctx, h, "down"))
			// Only what was added counts: mounts that a host inherited from the
			// machine go when their owner, another test, removes them.
			if left := added(before[h], f.traces(h)); left != "" {
				t.Errorf("left behind on %s:\n%s\nbefore:\n%s", h.Name, left, before[h])
			}
		}
	})
}

// writer writes one number after the other into an object, through whichever
// API server answers.
type writer struct {
	name                      string
	clients                   []kubernetes.Interface
	written, retried, longest atomic.Int64
}

// run writes until ctx ends. A write that is not answered is sent again,
// through the next API server.
func (w *writer) run(ctx context.Context, t *testing.T, first int) {
	for n := 1; ctx.Err() == nil; n++ {
		begin := time.Now()
		for try := first; ; try++ {
			one, end := context.WithTimeout(t.Context(), time.Second)
			_, err := w.clients[try%len(w.clients)].CoreV1().ConfigMaps("default").Patch(one, w.name, types.MergePatchType,
				fmt.Appendf(nil, `{"data":{"n":"%d"}}`, n), metav1.PatchOptions{})
			end()
			if err == nil {
				break
			}
			w.retried.Add(1)
			if time.Since(begin) > time.Minute {
				t.Errorf("write %d of %s is not made: %v", n, w.name, err)
				return
			}
		}
		w.written.Store(int64(n))
		w.longest.Store(max(w.longest.Load(), int64(time.Since(begin))))
	}
}

// leaderKilled kills the leading control daemon while writers write through
// every API server: each write is made in the end, after retries.
func (f *Fleet) leaderKilled(t *testing.T) {
	var clients []kubernetes.Interface
	for _, h := range f.Hosts[:3] {
		clients = append(clients, f.client(h))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	writers := make([]*writer, len(clients))
	for i := range writers {
		writers[i] = &writer{name: fmt.Sprintf("writer-%d", i), clients: clients}
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: writers[i].name}}
		if _, err := clients[i].CoreV1().ConfigMaps("default").Create(ctx, object, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		running.Go(func() { writers[i].run(ctx, t, i) })
	}
	more := func(than int64) func() bool {
		return func() bool {
			return !slices.ContainsFunc(writers, func(w *writer) bool { return w.written.Load() <= than })
		}
	}
	testenv.Eventually(t, 20*time.Second, more(20), "not all writers write")
	leader := f.leader(t, clients)
	if n, err := leader.Signal("skiff-control", unix.SIGKILL); err != nil || n != 1 {
		t.Fatalf("killed %d, %v", n, err)
	}
	most := slices.MaxFunc(writers, func(a, b *writer) int { return int(a.written.Load() - b.written.Load()) }).written.Load()
	testenv.Eventually(t, 60*time.Second, more(most+20), "not all writers write after %s was killed", leader.Name)
	cancel()
	running.Wait()
	for i, w := range writers {
		t.Logf("%s: %d written, %d retries, longest write %s", w.name, w.written.Load(), w.retried.Load(), time.Duration(w.longest.Load()).Round(time.Millisecond))
		for _, client := range clients {
			var stored *corev1.ConfigMap
			// The API server of the one that was killed may not be back yet.
			testenv.Eventually(t, 30*time.Second, func() bool {
				var err error
				stored, err = client.CoreV1().ConfigMaps("default").Get(t.Context(), w.name, metav1.GetOptions{})
				return err == nil
			}, "a read of %s is not answered", w.name)
			if stored.Data["n"] != fmt.Sprint(w.written.Load()) {
				t.Errorf("writer %d wrote up to %d, stored is %v", i, w.written.Load(), stored.Data)
			}
		}
	}
}

// client is an administrator's client of one host's API server.
func (f *Fleet) client(h *host.Host) kubernetes.Interface {
	f.t.Helper()
	settings, err := clientcmd.BuildConfigFromFlags("", h.Path("/etc/skiff/admin.conf"))
	if err != nil {
		f.t.Fatal(err)
	}
	settings.Dial, settings.QPS = f.Dial, -1
	client, err := kubernetes.NewForConfig(settings)
	if err != nil {
		f.t.Fatal(err)
	}
	return client
}

// leader finds the host whose member leads the store.
func (f *Fleet) leader(t *testing.T, clients []kubernetes.Interface) *host.Host {
	t.Helper()
	var found *host.Host
	testenv.Eventually(t, 10*time.Second, func() bool {
		for i, client := range clients {
			data, err := client.Discovery().RESTClient().Get().AbsPath(operator.StatusPath).DoRaw(t.Context())
			var status operator.Status
			if err == nil && json.Unmarshal(data, &status) == nil && status.Store.Leader {
				found = f.Hosts[i]
				return true
			}
		}
		return false
	}, "no host leads the store")
	return found
}
