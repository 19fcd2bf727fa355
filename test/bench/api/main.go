// Command api measures how fast a cluster's API answers, beside a TLS server
// that answers the same requests and does nothing: what the client library and
// HTTP/2 cost on this machine by themselves. It runs against a running cluster:
//
//	go run ./test/bench/api --kubeconfig /etc/skiff/admin.conf
//
// It makes a namespace for its objects and deletes it at the end. The pods it
// makes name a scheduler that nobody runs, so that only the API works.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

type options struct {
	kubeconfig  string
	duration    time.Duration
	clients     int
	connections int
	floor       bool
	pid         int
	only        string
}

func main() {
	o := options{}
	pflag.StringVar(&o.kubeconfig, "kubeconfig", "/etc/skiff/admin.conf", "administrator's kubeconfig of the cluster")
	pflag.DurationVar(&o.duration, "duration", 6*time.Second, "how long each kind of request is measured")
	pflag.IntVar(&o.clients, "clients", 32, "how many clients ask at once where it is not one")
	pflag.IntVar(&o.connections, "connections", 4, "over how many connections they do")
	pflag.BoolVar(&o.floor, "floor", true, "measure the server that does nothing, too")
	pflag.IntVar(&o.pid, "pid", 0, "process of the server, to tell its processor time for a request")
	pflag.StringVar(&o.only, "only", "", "measure only what has this in its name")
	pflag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	var err error
	if address := os.Getenv(floorVariable); address != "" {
		err = serveFloor(ctx, address)
	} else {
		err = o.run(ctx)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "api:", err)
		os.Exit(1)
	}
}

func (o options) run(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	ours, err := newTarget(ctx, config, o.connections, o.pid)
	if err != nil {
		return err
	}
	defer ours.clean()
	var floor *target
	if o.floor {
		config, pid, stop, err := startFloor(ctx)
		if err != nil {
			return err
		}
		defer stop()
		if floor, err = newTarget(ctx, config, o.connections, pid); err != nil {
			return err
		}
	}
	fmt.Println("| requests a second (the server's processor time for one) | Skiff | p50, p99 | a server that does nothing | ratio |\n|---|---|---|---|---|")
	for _, measured := range []struct {
		what    string
		clients int
		request request
	}{
		{"create ConfigMaps", 1, createConfigMap},
		{"create ConfigMaps", o.clients, createConfigMap},
		{"create Pods", o.clients, createPod},
		{"get ConfigMaps", o.clients, getConfigMap},
		{"update ConfigMaps", o.clients, updateConfigMap},
	} {
		if !strings.Contains(measured.what, o.only) {
			continue
		}
		got, err := ours.measure(ctx, measured.clients, o.duration, measured.request)
		if err != nil {
			return fmt.Errorf("%s: %w", measured.what, err)
		}
		beside, ratio := "", ""
		if floor != nil {
			least, err := floor.measure(ctx, measured.clients, o.duration/2, measured.request)
			if err != nil {
				return fmt.Errorf("%s, the server that does nothing: %w", measured.what, err)
			}
			beside, ratio = least.String(), fmt.Sprintf("%.2f", got.rate/least.rate)
		}
		fmt.Printf("| %s, %d clients | %s | %.1f ms, %.1f ms | %s | %s |\n", measured.what, measured.clients, got, milliseconds(got.p50), milliseconds(got.p99), beside, ratio)
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// configMap and pod are what is created, of the size such objects have.
func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "bench"}},
		Data:       map[string]string{"a": "a value of some length, as configuration has", "b": "another"},
	}
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "bench"}},
		Spec: corev1.PodSpec{SchedulerName: "nobody", Containers: []corev1.Container{{
			Name: "main", Image: "example.com/bench:1", Env: []corev1.EnvVar{{Name: "A", Value: "1"}},
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
		}}},
	}
}

// binary makes clients speak as components do.
func binary(config *rest.Config) *rest.Config {
	changed := rest.CopyConfig(config)
	changed.ContentType = "application/vnd.kubernetes.protobuf"
	changed.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	changed.QPS, changed.Burst = -1, 0
	return changed
}
