// Command node measures what a node costs: pods from create to Ready against
// raw containers of the same image started by ctr, and the memory and processor
// time of the daemons at rest. It runs against a cluster on this machine:
//
//	go run ./test/bench/node --kubeconfig /etc/skiff/admin.conf --containerd /run/containerd/containerd.sock
//
// hack/bench.sh makes such a cluster for it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

type options struct {
	kubeconfig, containerd, image string
	singles                       int
	bursts                        []int
	parallel, held, lags          int
	web                           string
	rest                          time.Duration
	daemons                       []string
}

func main() {
	o := options{}
	pflag.StringVar(&o.kubeconfig, "kubeconfig", "/etc/skiff/admin.conf", "administrator's kubeconfig of the cluster")
	pflag.StringVar(&o.containerd, "containerd", "/run/containerd/containerd.sock", "containerd's socket, for the raw containers")
	pflag.StringVar(&o.image, "image", "docker.io/library/busybox:latest", "image of the pods and of the raw containers; it must be present")
	pflag.IntVar(&o.singles, "singles", 15, "how many single pods are timed")
	pflag.IntSliceVar(&o.bursts, "bursts", []int{30, 100}, "sizes of the bursts")
	pflag.IntVar(&o.held, "held", 110, "how many pods run while the daemons are watched at rest; 0 for none")
	pflag.IntVar(&o.lags, "lags", 50, "how many pods behind a service are timed; 0 for none")
	pflag.StringVar(&o.web, "web", "docker.io/skiff/web:latest", "image of a web server at port 8080; it must be present")
	pflag.IntVar(&o.parallel, "parallel", 8, "raw containers started at a time")
	pflag.DurationVar(&o.rest, "rest", time.Minute, "how long the daemons are watched at rest")
	pflag.StringSliceVar(&o.daemons, "daemons", nil, "name=pid of the daemons to watch at rest")
	pflag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := o.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
}

func (o options) run(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	config.QPS, config.Burst = -1, 0
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	report := &report{}
	if err := o.atRest(ctx, report, "fresh"); err != nil {
		return err
	}
	raw := rawContainers{socket: o.containerd, image: o.image}
	pods := pods{client: client, image: o.image}
	if err := o.compare(ctx, report, raw, pods); err != nil {
		return err
	}
	if o.lags > 0 {
		lags, err := pods.traffic(ctx, o.web, o.lags)
		if err != nil {
			return err
		}
		report.add(fmt.Sprintf("| pod seen Ready to a connection through its service, %d pods | median %.1f ms, worst %.1f ms | | |",
			len(lags), milliseconds(median(lags)), milliseconds(lags[len(lags)-1])))
	}
	if o.held > 0 {
		meanwhile := func() error { return o.atRest(ctx, report, fmt.Sprintf("with %d pods", o.held)) }
		if _, err := pods.hold(ctx, "held", o.held, meanwhile); err != nil {
			return err
		}
	}
	if err := o.atRest(ctx, report, "after the pods came and went"); err != nil {
		return err
	}
	report.print(os.Stdout)
	return nil
}

// compare times raw containers and pods in turn.
func (o options) compare(ctx context.Context, report *report, raw rawContainers, pods pods) error {
	nodes, err := pods.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil || len(nodes.Items) == 0 {
		return fmt.Errorf("list nodes: %d found: %w", len(nodes.Items), err)
	}
	node := nodes.Items[0].Name
	before, err := operationsOf(ctx, pods.client, node)
	if err != nil {
		return err
	}
	var bare, ready []time.Duration
	for i := range o.singles {
		took, err := raw.burst(ctx, fmt.Sprintf("single-%d", i), 1, 1)
		if err != nil {
			return err
		}
		bare = append(bare, took)
		if took, err = pods.burst(ctx, fmt.Sprintf("single-%d", i), 1); err != nil {
			return err
		}
		ready = append(ready, took)
	}
	report.compared("one pod, create to Ready (median)", median(ready), median(bare))
	after, err := operationsOf(ctx, pods.client, node)
	if err != nil {
		return err
	}
	report.steps(median(ready), before, after)
	for _, n := range o.bursts {
		took, err := raw.burst(ctx, fmt.Sprintf("burst-%d", n), n, o.parallel)
		if err != nil {
			return err
		}
		all, err := pods.burst(ctx, fmt.Sprintf("burst-%d", n), n)
		if err != nil {
			return err
		}
		report.compared(fmt.Sprintf("%d pods at once, all Ready", n), all, took)
	}
	return nil
}
