package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// webPort is where the image of a web server listens.
	webPort = 8080
	// dialEvery is how often a connection is tried until one stands; it bounds
	// how exact the figure is.
	dialEvery = time.Millisecond
	dialLimit = 200 * time.Millisecond
)

// traffic starts pods behind a service, one after the other, and returns for
// each how long after the API showed it Ready a connection to the service's
// address stood. None stands before: without endpoints it is refused.
func (p pods) traffic(ctx context.Context, image string, n int) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, podLimit)
	defer cancel()
	labels := map[string]string{"bench": "traffic"}
	service, err := p.client.CoreV1().Services(podNamespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "bench-traffic"},
		Spec:       corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(webPort)}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create service: %w", err)
	}
	defer func() {
		_ = p.client.CoreV1().Services(podNamespace).Delete(context.WithoutCancel(ctx), service.Name, metav1.DeleteOptions{})
	}()
	events, err := p.client.CoreV1().Pods(podNamespace).Watch(ctx, metav1.ListOptions{LabelSelector: "bench=traffic"})
	if err != nil {
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	defer events.Stop()
	address := net.JoinHostPort(service.Spec.ClusterIP, "80")
	var all []time.Duration
	for i := range n {
		pod := p.pod("traffic", i)
		pod.Labels, pod.Spec.Containers[0].Image, pod.Spec.Containers[0].Command = labels, image, nil
		connected := make(chan time.Time, 1)
		dialing, stop := context.WithCancel(ctx)
		go func() { connected <- dialUntil(dialing, address) }()
		took, err := p.lag(ctx, pod, events, connected)
		stop()
		if err != nil {
			return nil, err
		}
		all = append(all, took)
		grace := int64(0)
		if err := p.client.CoreV1().Pods(podNamespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &grace}); err != nil {
			return nil, fmt.Errorf("delete pod %s: %w", pod.Name, err)
		}
		if err := await(ctx, events, 1, func(e watch.Event) bool { return e.Type == watch.Deleted }); err != nil {
			return nil, err
		}
		if err := refused(ctx, address); err != nil {
			return nil, err
		}
	}
	slices.Sort(all)
	return all, nil
}

// lag creates a pod and returns how long after it was Ready a connection stood.
func (p pods) lag(ctx context.Context, pod *corev1.Pod, events watch.Interface, connected <-chan time.Time) (time.Duration, error) {
	if _, err := p.client.CoreV1().Pods(podNamespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return 0, fmt.Errorf("create pod %s: %w", pod.Name, err)
	}
	if err := await(ctx, events, 1, ready); err != nil {
		return 0, err
	}
	begin := time.Now()
	at := <-connected
	if at.IsZero() {
		return 0, errors.Join(fmt.Errorf("no connection to the service of pod %s", pod.Name), ctx.Err())
	}
	return max(at.Sub(begin), 0), nil
}

// dialUntil returns when a connection stood; zero when ctx ended before.
func dialUntil(ctx context.Context, address string) time.Time {
	dialer := net.Dialer{Timeout: dialLimit}
	for ctx.Err() == nil {
		if connection, err := dialer.DialContext(ctx, "tcp", address); err == nil {
			connection.Close()
			return time.Now()
		}
		select {
		case <-ctx.Done():
		case <-time.After(dialEvery):
		}
	}
	return time.Time{}
}

// refused returns when no connection to the address stands any more.
func refused(ctx context.Context, address string) error {
	dialer := net.Dialer{Timeout: dialLimit}
	for {
		connection, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil && ctx.Err() == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("a removed pod still answers at %s: %w", address, ctx.Err())
		}
		connection.Close()
		select {
		case <-ctx.Done():
		case <-time.After(dialEvery):
		}
	}
}
