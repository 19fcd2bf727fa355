package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// target is a server that is asked, and the namespace of the objects.
type target struct {
	clients   []kubernetes.Interface
	namespace string
	made      atomic.Int64 // how many objects
	pid       int          // of the server; 0: not known
}

// request makes one request; n counts them.
type request func(ctx context.Context, t *target, client kubernetes.Interface, n int64) error

func newTarget(ctx context.Context, config *rest.Config, connections, pid int) (*target, error) {
	t := &target{pid: pid}
	for range connections {
		own := binary(config)
		// A dialer of its own keeps a client from sharing the others' connection.
		own.Dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
		client, err := kubernetes.NewForConfig(own)
		if err != nil {
			return nil, err
		}
		t.clients = append(t.clients, client)
	}
	made, err := t.clients[0].CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"}}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("make a namespace: %w", err)
	}
	t.namespace = made.Name
	if err := t.waitForAccount(ctx); err != nil {
		return nil, err
	}
	for range read {
		if err := createConfigMap(ctx, t, t.clients[0], 0); err != nil {
			return nil, fmt.Errorf("make what is read: %w", err)
		}
	}
	return t, nil
}

// waitForAccount waits for the account that pods are made with.
func (t *target) waitForAccount(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		_, err := t.clients[0].CoreV1().ServiceAccounts(t.namespace).Get(ctx, "default", metav1.GetOptions{})
		if err == nil || !apierrors.IsNotFound(err) {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("namespace %s gets no service account: %w", t.namespace, ctx.Err())
		}
	}
}

// clean deletes the namespace and does not wait for it.
func (t *target) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// What is left is named after this program.
	_ = t.clients[0].CoreV1().Namespaces().Delete(ctx, t.namespace, metav1.DeleteOptions{})
}

type result struct {
	rate     float64 // requests a second
	p50, p99 time.Duration
	// processor is the server's processor time for one request, 0 if unknown.
	processor time.Duration
}

// String tells rate and processor time.
func (r result) String() string {
	if r.processor == 0 {
		return fmt.Sprintf("%.0f", r.rate)
	}
	return fmt.Sprintf("%.0f (%d µs)", r.rate, r.processor.Microseconds())
}

// measure lets so many clients ask one request after the other.
func (t *target) measure(ctx context.Context, clients int, duration time.Duration, ask request) (result, error) {
	// Connections and the server's code are warm before the clock runs.
	warm, err := t.run(ctx, clients, duration/6, ask)
	if err != nil || len(warm) == 0 {
		return result{}, errors.Join(err, ctx.Err())
	}
	began, used := time.Now(), processorTime(t.pid)
	took, err := t.run(ctx, clients, duration, ask)
	if err != nil || len(took) == 0 {
		return result{}, errors.Join(err, ctx.Err())
	}
	elapsed := time.Since(began)
	used = processorTime(t.pid) - used
	slices.Sort(took)
	return result{float64(len(took)) / elapsed.Seconds(), took[len(took)/2], took[len(took)*99/100], used / time.Duration(len(took))}, nil
}

// processorTime is what a process has used so far; 0 if that cannot be told.
func processorTime(pid int) (sum time.Duration) {
	// A process's own schedstat is of its main thread only.
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, thread := range threads {
		data, err := os.ReadFile(thread)
		if err != nil {
			continue // it has ended
		}
		used, _, _ := strings.Cut(string(data), " ")
		if n, err := strconv.ParseInt(used, 10, 64); err == nil {
			sum += time.Duration(n)
		}
	}
	return sum
}

func (t *target) run(ctx context.Context, clients int, duration time.Duration, ask request) ([]time.Duration, error) {
	var mu sync.Mutex // guards what follows
	var all []time.Duration
	var failed error
	var workers sync.WaitGroup
	var asked atomic.Int64
	end := time.Now().Add(duration)
	for worker := range clients {
		workers.Go(func() {
			client := t.clients[worker%len(t.clients)]
			var took []time.Duration
			var err error
			for ctx.Err() == nil && err == nil && time.Now().Before(end) {
				began := time.Now()
				err = ask(ctx, t, client, asked.Add(1))
				took = append(took, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			failed = errors.Join(failed, err)
		})
	}
	workers.Wait()
	return all, failed
}

func createConfigMap(ctx context.Context, t *target, client kubernetes.Interface, _ int64) error {
	_, err := client.CoreV1().ConfigMaps(t.namespace).Create(ctx, configMap(fmt.Sprint("map-", t.made.Add(1))), metav1.CreateOptions{})
	return err
}

func createPod(ctx context.Context, t *target, client kubernetes.Interface, _ int64) error {
	_, err := client.CoreV1().Pods(t.namespace).Create(ctx, pod(fmt.Sprint("pod-", t.made.Add(1))), metav1.CreateOptions{})
	return err
}

// The first of the objects that createConfigMap made are read and written.
const read = 100

func getConfigMap(ctx context.Context, t *target, client kubernetes.Interface, n int64) error {
	_, err := client.CoreV1().ConfigMaps(t.namespace).Get(ctx, fmt.Sprint("map-", 1+n%read), metav1.GetOptions{})
	return err
}

func updateConfigMap(ctx context.Context, t *target, client kubernetes.Interface, n int64) error {
	changed := configMap(fmt.Sprint("map-", 1+n%read))
	changed.Data["n"] = fmt.Sprint(n)
	_, err := client.CoreV1().ConfigMaps(t.namespace).Update(ctx, changed, metav1.UpdateOptions{})
	return err
}
