package metrics

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/skiff-run/skiff/control/registry"
)

// lister lists what it holds, by labels and name.
type lister struct {
	rest.Lister
	pods  []corev1.Pod
	nodes []corev1.Node
}

func (l *lister) List(_ context.Context, o *internalversion.ListOptions) (runtime.Object, error) {
	selected := func(m *metav1.ObjectMeta) bool {
		name := ""
		if o.FieldSelector != nil {
			name, _ = o.FieldSelector.RequiresExactMatch("metadata.name")
		}
		return (o.LabelSelector == nil || o.LabelSelector.Matches(labels.Set(m.Labels))) && (name == "" || name == m.Name)
	}
	if l.nodes != nil {
		list := &corev1.NodeList{}
		for i := range l.nodes {
			if selected(&l.nodes[i].ObjectMeta) {
				list.Items = append(list.Items, l.nodes[i])
			}
		}
		return list, nil
	}
	list := &corev1.PodList{}
	for i := range l.pods {
		if selected(&l.pods[i].ObjectMeta) {
			list.Items = append(list.Items, l.pods[i])
		}
	}
	return list, nil
}

func (l *lister) Read(_ context.Context, name string) (*corev1.Node, error) {
	for i := range l.nodes {
		if l.nodes[i].Name == name {
			return &l.nodes[i], nil
		}
	}
	return nil, apierrors.NewNotFound(corev1.Resource("nodes"), name)
}

// usage in thousandths of a core and bytes.
func usage(cpu, memory int64) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(cpu, resource.DecimalSI), corev1.ResourceMemory: *resource.NewQuantity(memory, resource.BinarySI)}
}

func TestFiguresComeFromTheAgentsWhenSomebodyAsks(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	window := metav1.Duration{Duration: 12 * time.Second}
	agent := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path != "/metrics/usage" {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(top{
			Node: &metricsv1beta1.NodeMetrics{ObjectMeta: metav1.ObjectMeta{Name: "forged"}, Window: window, Usage: usage(500, 1<<30)},
			Pods: []metricsv1beta1.PodMetrics{
				{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "n"}, Window: window, Containers: []metricsv1beta1.ContainerMetrics{{Name: "c", Usage: usage(20, 1<<20)}, {Name: "d", Usage: usage(5, 1<<20)}}},
				{ObjectMeta: metav1.ObjectMeta{Name: "elsewhere", Namespace: "n"}, Window: window, Containers: []metricsv1beta1.ContainerMetrics{{Name: "c", Usage: usage(9000, 1<<40)}}},
			},
		})
	}))
	t.Cleanup(agent.Close)
	at, err := url.Parse(agent.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(at.Port())
	if err != nil {
		t.Fatal(err)
	}
	node := func(name, address string) corev1.Node {
		return corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}}, Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}, DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(port)}},
		}}
	}
	pod := func(name, node string) corev1.Pod {
		return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "n", Labels: map[string]string{"app": name}}, Spec: corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	}
	// Nobody listens at the second node; the pod that n1 claims to run is n2's.
	nodes := &lister{nodes: []corev1.Node{node("n1", at.Hostname()), node("n2", "127.0.0.2")}}
	pods := &lister{pods: []corev1.Pod{pod("web", "n1"), pod("elsewhere", "n2"), pod("pending", "")}}
	source := newSource(registry.Agents{Transport: agent.Client().Transport}, nodes)
	podMetrics, nodeMetrics := &podMetrics{pods: pods, source: source}, &nodeMetrics{nodes: nodes, source: source}
	ctx := request.WithNamespace(t.Context(), "n")

	object, err := podMetrics.List(ctx, &internalversion.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	list := object.(*metricsv1beta1.PodMetricsList)
	if len(list.Items) != 1 || list.Items[0].Name != "web" || list.Items[0].Labels["app"] != "web" || list.Items[0].Containers[0].Usage.Cpu().MilliValue() != 20 || list.Items[0].Window != window {
		t.Errorf("pods %+v", list.Items)
	}
	table, err := podMetrics.ConvertToTable(ctx, list, nil)
	if err != nil || table.Rows[0].Cells[1] != "25m" || table.Rows[0].Cells[2] != "2Mi" {
		t.Errorf("table %+v, %v", table, err)
	}
	if object, err = nodeMetrics.List(ctx, &internalversion.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if items := object.(*metricsv1beta1.NodeMetricsList).Items; len(items) != 1 || items[0].Name != "n1" || items[0].Usage.Memory().Value() != 1<<30 || items[0].Labels["name"] != "n1" {
		t.Errorf("nodes %+v", items)
	}
	if _, err := nodeMetrics.Get(ctx, "n1", nil); err != nil {
		t.Error(err)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the agent was asked %d times within seconds", n)
	}
	if _, err := podMetrics.Get(ctx, "elsewhere", nil); !apierrors.IsNotFound(err) || err.Error() != `pods.metrics.k8s.io "n/elsewhere" not found` {
		t.Errorf("figures of a node that does not answer: %v", err)
	}
	if _, err := nodeMetrics.Get(ctx, "n2", nil); !apierrors.IsNotFound(err) {
		t.Errorf("figures of a node that does not answer: %v", err)
	}
}
