package endurance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/cluster"
	"github.com/skiff-run/skiff/test/host"
)

// node is a host with a cluster of its own, all daemons and a containerd.
type node struct {
	*host.Host
	fleet *cluster.Fleet
	api   *kubernetes.Clientset
}

// newNode founds a cluster of one host, to be removed after the test. prepare,
// which may be nil, works on the host before the daemons start.
func newNode(t testing.TB, name string, prepare func(h *host.Host) error, flags ...string) *node {
	t.Helper()
	f := cluster.NewFleet(t, name)
	h, err := f.Add("host1")
	if err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		if err := prepare(h); err != nil {
			t.Fatal(err)
		}
	}
	if said, err := f.Found(t.Context(), h, flags...); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	config, err := clientcmd.BuildConfigFromFlags("", h.Path("/etc/skiff/admin.conf"))
	if err != nil {
		t.Fatal(err)
	}
	config.Dial, config.QPS, config.Burst = h.Dial, 200, 400
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Host: h, fleet: f, api: api}
	testenv.Eventually(t, time.Minute, func() bool { return n.ready(t.Context()) }, "the node is not Ready")
	return n
}

// ready says whether the API says that the node is Ready.
func (n *node) ready(ctx context.Context) bool {
	condition := n.condition(ctx, corev1.NodeReady)
	return condition != nil && condition.Status == corev1.ConditionTrue
}

// condition is a condition of the node, nil when it cannot be had.
func (n *node) condition(ctx context.Context, kind corev1.NodeConditionType) *corev1.NodeCondition {
	found, err := n.api.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	for i := range found.Status.Conditions {
		if found.Status.Conditions[i].Type == kind {
			return &found.Status.Conditions[i]
		}
	}
	return nil
}

// pod reads a pod; nil when there is none or the API does not answer.
func (n *node) pod(ctx context.Context, name string) *corev1.Pod {
	pod, err := n.api.CoreV1().Pods(metav1.NamespaceDefault).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return pod
}

// create makes a pod, and asks again while the API server is not there.
func (n *node) create(ctx context.Context, pod *corev1.Pod) error {
	return n.insist(ctx, func(ctx context.Context) error {
		_, err := n.api.CoreV1().Pods(metav1.NamespaceDefault).Create(ctx, pod, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil // by an earlier attempt whose answer was lost
		}
		return err
	})
}

// remove deletes a pod with a grace period.
func (n *node) remove(ctx context.Context, uid types.UID, name string, grace int64) error {
	return n.insist(ctx, func(ctx context.Context) error {
		err := n.api.CoreV1().Pods(metav1.NamespaceDefault).Delete(ctx, name, metav1.DeleteOptions{
			GracePeriodSeconds: &grace, Preconditions: &metav1.Preconditions{UID: &uid},
		})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return err
	})
}

// insist repeats a request until it succeeds, is refused for good, or ctx ends.
func (n *node) insist(ctx context.Context, request func(ctx context.Context) error) error {
	for {
		err := request(ctx)
		if err == nil || apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// events are the reasons and messages of a pod's events, a line each.
func (n *node) events(ctx context.Context, pod string) string {
	list, err := n.api.CoreV1().Events(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod})
	if err != nil {
		return err.Error()
	}
	var lines strings.Builder
	for _, e := range list.Items {
		fmt.Fprintf(&lines, "%s %s: %s\n", e.Type, e.Reason, e.Message)
	}
	return lines.String()
}

// logLines reads what a container of a pod wrote, from all files of its log.
func (n *node) logLines(pod *corev1.Pod, container string) ([]string, error) {
	folder := fmt.Sprintf("%s_%s_%s", pod.Namespace, pod.Name, pod.UID)
	said, err := n.Run(context.Background(), "sh", "-c", // files are named after the time they were put aside, the newest is 0.log
		`cd "/var/log/pods/$1/$2" && for f in $(ls | grep '0.log\.' | sort) 0.log; do case $f in *.gz) zcat $f;; *) cat $f;; esac; done`, "sh", folder, container)
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(said) {
		if fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4); len(fields) == 4 {
			lines = append(lines, fields[3])
		}
	}
	return lines, nil
}

// describe is a pod's status for a failure's message.
func describe(pod *corev1.Pod) string {
	if pod == nil {
		return "there is no such pod"
	}
	data, err := json.Marshal(pod.Status)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// daemonLog shows the end of a daemon's log.
func (n *node) daemonLog(daemon string, size int) string {
	data, err := os.ReadFile(n.Path(filepath.Join("/var/log/skiff", daemon+".log")))
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-size):])
}
