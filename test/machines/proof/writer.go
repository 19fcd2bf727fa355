package proof

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/skiff-run/skiff/test/machines/fleet"
)

// requestLimit is how long a writer or reader waits for one answer before it
// tries again.
const requestLimit = 3 * time.Second

// clientOf is a client of one machine's API server.
func clientOf(t *testing.T, f *fleet.Fleet, m *fleet.Machine) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("https://"+m.Address.String()+":6443", f.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	config.Dial = f.Dial
	config.QPS = -1 // as fast as it is answered
	config.Timeout = requestLimit
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// series are the answers that somebody got who asks again and again.
type series struct {
	mu sync.Mutex
	// done counts requests that were answered, failed those that were not.
	done, failed int
	// last is when the latest was answered, pause the longest time between two.
	last  time.Time
	pause time.Duration
	// failures are what was said, the first of each kind.
	failures map[string]bool
}

func (s *series) add(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if err != nil {
		s.failed++
		if s.failures == nil {
			s.failures = map[string]bool{}
		}
		if len(s.failures) < 5 {
			s.failures[err.Error()] = true
		}
		return
	}
	if s.done > 0 {
		s.pause = max(s.pause, now.Sub(s.last))
	}
	s.done++
	s.last = now
}

// count is how many requests have been answered.
func (s *series) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

func (s *series) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := fmt.Sprintf("%d answered, %d not, longest pause %s", s.done, s.failed, s.pause.Round(time.Millisecond))
	for failure := range s.failures {
		text += "\n  " + failure
	}
	return text
}

// traffic is a writer and a reader at each of some machines.
type traffic struct {
	writes, reads map[string]*series
	// acknowledged is the last number each writer was told is kept.
	acknowledged map[string]int
	stop         func()
}

// writeAndRead writes numbers, one after the other, to a ConfigMap of each
// machine's own through that machine's API, and reads through it, until stopped.
func writeAndRead(t *testing.T, f *fleet.Fleet, through []*fleet.Machine) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	tr := &traffic{writes: map[string]*series{}, reads: map[string]*series{}, acknowledged: map[string]int{}}
	tr.stop = func() { cancel(); group.Wait() }
	var mu sync.Mutex // guards acknowledged
	for _, m := range through {
		client := clientOf(t, f, m).CoreV1().ConfigMaps("default")
		name := "written-through-" + m.Name
		_, err := client.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		writes, reads := &series{}, &series{}
		tr.writes[m.Name], tr.reads[m.Name] = writes, reads
		group.Go(func() {
			for i := 1; ctx.Err() == nil; i++ {
				_, err := client.Update(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"number": strconv.Itoa(i)}}, metav1.UpdateOptions{})
				if ctx.Err() != nil {
					return // cut short by us
				}
				writes.add(err)
				if err == nil {
					mu.Lock()
					tr.acknowledged[m.Name] = i
					mu.Unlock()
				}
				rest(ctx, err)
			}
		})
		group.Go(func() {
			for ctx.Err() == nil {
				// From the machine's own memory, as watches and informers are served.
				_, err := client.Get(ctx, name, metav1.GetOptions{ResourceVersion: "0"})
				if ctx.Err() == nil {
					reads.add(err)
				}
				rest(ctx, err)
			}
		})
	}
	return tr
}

// rest leaves the processor to others; nobody needs more than some hundred
// answers a second here.
func rest(ctx context.Context, err error) {
	pause := 5 * time.Millisecond
	if err != nil {
		pause = 50 * time.Millisecond
	}
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}

// kept reads what is in the store of a number that was acknowledged.
func kept(t *testing.T, f *fleet.Fleet, through *fleet.Machine, name string) int {
	t.Helper()
	text := kubectl(t, f, via(through), "get", "configmap", "written-through-"+name, "-o", "jsonpath={.data.number}")
	number, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("what was written through %s is %q", name, text)
	}
	return number
}
