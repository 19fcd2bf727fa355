package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

const (
	podNamespace = "default"
	podLimit     = 5 * time.Minute
)

// pods are created through the API and watched there, as any client would.
type pods struct {
	client kubernetes.Interface
	image  string
}

// burst creates n pods and returns how long it took until all were Ready. Then
// it removes them.
func (p pods) burst(ctx context.Context, name string, n int) (took time.Duration, err error) {
	return p.hold(ctx, name, n, nil)
}

// hold is burst, with something done between the time the pods are Ready and
// their end. Pods have podLimit for each of the two ways.
func (p pods) hold(ctx context.Context, name string, n int, meanwhile func() error) (took time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	limit := time.AfterFunc(podLimit, cancel)
	defer limit.Stop()
	label := "bench=" + name
	events, err := p.client.CoreV1().Pods(podNamespace).Watch(ctx, metav1.ListOptions{LabelSelector: label})
	if err != nil {
		return 0, fmt.Errorf("watch pods: %w", err)
	}
	defer events.Stop()
	began := time.Now()
	creating, creation := errgroup.WithContext(ctx)
	creating.SetLimit(8)
	for i := range n {
		creating.Go(func() error {
			_, err := p.client.CoreV1().Pods(podNamespace).Create(creation, p.pod(name, i), metav1.CreateOptions{})
			return err
		})
	}
	done := make(chan error, 1)
	go func() { done <- creating.Wait() }()
	err = await(ctx, events, n, ready)
	took = time.Since(began)
	if err := errors.Join(err, <-done); err != nil {
		return 0, fmt.Errorf("burst %s: %w", name, err)
	}
	if meanwhile != nil {
		limit.Stop()
		if err := meanwhile(); err != nil {
			return 0, err
		}
		limit.Reset(podLimit)
	}
	grace := int64(0)
	if err := p.client.CoreV1().Pods(podNamespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &grace}, metav1.ListOptions{LabelSelector: label}); err != nil {
		return 0, fmt.Errorf("delete pods: %w", err)
	}
	return took, await(ctx, events, n, func(e watch.Event) bool { return e.Type == watch.Deleted })
}

// await reads events until n pods have been seen as wanted.
func await(ctx context.Context, events watch.Interface, n int, wanted func(watch.Event) bool) error {
	seen := map[string]bool{}
	for len(seen) < n {
		select {
		case e, open := <-events.ResultChan():
			pod, ok := e.Object.(*corev1.Pod)
			if !open || !ok {
				return fmt.Errorf("the watch ended: %v", e.Object)
			}
			if wanted(e) {
				seen[pod.Name] = true
			}
		case <-ctx.Done():
			return fmt.Errorf("%d of %d pods: %w", len(seen), n, ctx.Err())
		}
	}
	return nil
}

func ready(e watch.Event) bool {
	for _, c := range e.Object.(*corev1.Pod).Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func (p pods) pod(name string, i int) *corev1.Pod {
	never := false
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("bench-%s-%d", name, i), Labels: map[string]string{"bench": name}},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: &never,
			Containers: []corev1.Container{{
				Name: "main", Image: p.image, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"sleep", "3600"},
			}},
		},
	}
}
