package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/skiff-run/skiff/internal/apiclient"
	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/internal/version"
)

// progress tells a person what a starting cluster has reached, a line a step.
type progress struct {
	out     io.Writer
	begin   time.Time
	options *Options
	// since is the oldest report of the node that counts: an older one is what
	// the last run left in the store.
	since          time.Time
	configurations configurations
}

func (p *progress) step(what, detail string) {
	fmt.Fprintf(p.out, "  %-12s %-44s %6.2f s\n", what, detail, time.Since(p.begin).Seconds())
}

func (p *progress) begun() {
	fmt.Fprintf(p.out, "Skiff %s on %s (%s)\n", version.Version, p.configurations.agent.NodeName, p.configurations.agent.NodeIP)
	p.step("files", p.options.PKI())
}

// client speaks to the API: on a control machine as its administrator to its
// own server, on a worker as its node to any.
func (p *progress) client() (kubernetes.Interface, string, error) {
	var connection *rest.Config
	var err error
	if p.configurations.role == operator.Worker {
		agent := p.configurations.agent
		var worker *apiclient.Connection
		if worker, err = apiclient.Load(apiclient.Options{
			Kubeconfig: agent.Kubeconfig, Addresses: agent.ControlAddresses, UserAgent: "skiff/" + version.Version, Logger: slog.New(slog.DiscardHandler),
		}); err == nil {
			connection = worker.Config
		}
	} else {
		connection, err = clientcmd.BuildConfigFromFlags("", p.options.AdminKubeconfig())
	}
	if err != nil {
		return nil, "", fmt.Errorf("read kubeconfig: %w", err)
	}
	connection.QPS, connection.Burst, connection.Timeout = 200, 200, 5*time.Second
	client, err := kubernetes.NewForConfig(connection)
	if err != nil {
		return nil, "", fmt.Errorf("make client: %w", err)
	}
	return client, connection.Host, nil
}

// untilReady returns when containerd, API server, node and proxy are up.
func (p *progress) untilReady(ctx context.Context) error {
	socket := p.configurations.agent.ContainerdAddress
	if err := waitForSocket(ctx, socket); err != nil {
		return fmt.Errorf("wait for containerd at %s: %w", socket, err)
	}
	p.step("containerd", socket)

	client, server, err := p.client()
	if err != nil {
		return err
	}
	if err := poll(ctx, func() bool {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() == nil
	}); err != nil {
		return fmt.Errorf("wait for the API server at %s: %w", server, err)
	}
	p.step("control", server)

	node := p.configurations.agent.NodeName
	if err := poll(ctx, func() bool { return nodeReady(ctx, client, node, p.since) }); err != nil {
		return fmt.Errorf("wait for node %s to be Ready: %w", node, err)
	}
	if p.configurations.role != operator.Worker {
		var problem error
		if err := poll(ctx, func() bool { problem = markControl(ctx, client, node); return problem == nil }); err != nil {
			return fmt.Errorf("label node %s: %w", node, errors.Join(err, problem))
		}
	}
	p.step("agent", "node "+node+" is Ready")

	if port := p.configurations.proxy.HealthPort; port != 0 {
		url := fmt.Sprintf("http://%s:%d/healthz", p.configurations.agent.NodeIP, port)
		if err := poll(ctx, func() bool { return healthy(ctx, url) }); err != nil {
			return fmt.Errorf("wait for the proxy at %s: %w", url, err)
		}
		p.step("proxy", p.proxyMode(ctx)+", DNS at "+p.configurations.proxy.DNS.Address)
	}
	return nil
}

// nodeReady says whether the node reported Ready since the given time: an older
// report is what the last run left in the store.
func nodeReady(ctx context.Context, client kubernetes.Interface, name string, since time.Time) bool {
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return false
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue && !condition.LastHeartbeatTime.Time.Before(since.Truncate(time.Second))
		}
	}
	return false
}

// markControl gives the node of a control machine its role, as kubeadm does: a
// node may not give it to itself.
func markControl(ctx context.Context, client kubernetes.Interface, name string) error {
	const patch = `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`
	_, err := client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

func healthy(ctx context.Context, url string) bool {
	_, err := get(ctx, url)
	return err == nil
}

// proxyMode is the mode the proxy chose; as configured when it does not tell.
func (p *progress) proxyMode(ctx context.Context) string {
	c := p.configurations.proxy
	if c.MetricsPort == 0 {
		return c.Mode
	}
	mode, err := get(ctx, fmt.Sprintf("http://127.0.0.1:%d/proxyMode", c.MetricsPort))
	if err != nil {
		return c.Mode
	}
	return mode
}

// maxAnswer is more than any answer that is asked for here has, in bytes.
const maxAnswer = 4096

// get returns what a daemon of this machine answers.
func get(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answers %s", url, response.Status)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	return string(data), err
}

// next says what to type now.
func (p *progress) next() {
	root := ""
	if p.options.Root != "/" {
		root = " --root " + p.options.Root
	}
	if p.configurations.role == operator.Worker {
		fmt.Fprintf(p.out, "\nThis worker runs.\nLogs: %s    Stop: skiff down%s    Leave the cluster: skiff reset --yes%s\n", p.options.Logs(), root, root)
		return
	}
	fmt.Fprintf(p.out, `
The cluster runs. Next:
  export KUBECONFIG=%s
  kubectl get nodes                      # or, without kubectl: skiff kubectl get nodes
  kubectl create deployment web --image=nginx:1.25 --replicas=3
  kubectl get pods -o wide
Logs: %s    Stop: skiff down%s    Stop and forget: skiff reset --yes%s
`, p.options.AdminKubeconfig(), p.options.Logs(), root, root)
}
