package agent

import (
	"net/http"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/podsource"
	"github.com/skiff-run/skiff/agent/podworker"
	"github.com/skiff-run/skiff/agent/usage"
)

// metrics serves what the agent tells of itself, under the kubelet's names.
func (a *Agent) metrics(pool *podworker.Pool, used *usage.Collector) http.Handler {
	return serveMetrics(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), podMetrics{a.NodeName, pool}, used.Claims(), a.Runtime)
}

// serveMetrics collects at each request.
func serveMetrics(list ...prometheus.Collector) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(list...)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// systemLogs is the folder served at /logs/: where the pods' logs are, too.
func (a *Agent) systemLogs() string {
	if !a.Settings.EnableSystemLogHandler {
		return ""
	}
	return filepath.Dir(a.Settings.PodLogsDir)
}

// podMetrics counts pods and containers.
type podMetrics struct {
	node string
	pool *podworker.Pool
}

// Describe sends nothing: what is collected is known only then.
func (podMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m podMetrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(name, help string, value float64, labels map[string]string) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, labels), prometheus.GaugeValue, value)
	}
	gauge("kubelet_node_name", "The node's name. The count is always 1.", 1, map[string]string{"node": m.node})
	running := 0
	active, desired := map[bool]float64{}, map[bool]float64{}
	states := map[string]float64{"running": 0, "exited": 0, "created": 0, "unknown": 0}
	for _, pod := range m.pool.Pods() {
		static := podsource.IsStatic(pod)
		desired[static]++
		if pod.Status.Phase != v1.PodSucceeded && pod.Status.Phase != v1.PodFailed {
			active[static]++
		}
		if pod.Status.Phase == v1.PodRunning {
			running++
		}
		for _, statuses := range [][]v1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses} {
			for i := range statuses {
				switch state := statuses[i].State; {
				case state.Running != nil:
					states["running"]++
				case state.Terminated != nil:
					states["exited"]++
				}
			}
		}
	}
	gauge("kubelet_running_pods", "Number of pods that have a running pod sandbox", float64(running), nil)
	for state, count := range states {
		gauge("kubelet_running_containers", "Number of containers currently running", count, map[string]string{"container_state": state})
	}
	for static, label := range map[bool]string{true: "true", false: ""} {
		gauge("kubelet_desired_pods", "The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.", desired[static], map[string]string{"static": label})
		gauge("kubelet_active_pods", "The number of pods the kubelet considers active and which are being considered when admitting new pods. static is true if the pod is not from the apiserver.", active[static], map[string]string{"static": label})
	}
}
