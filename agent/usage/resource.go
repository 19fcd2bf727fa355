package usage

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// family is a metric with its labels.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func counter(name, help string, labels ...string) family {
	return family{prometheus.NewDesc(name, help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) family {
	return family{prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue}
}

// at is one value of the family, measured then.
func (f family) at(when time.Time, value float64, labels ...string) prometheus.Metric {
	m := prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...)
	if when.IsZero() {
		return m
	}
	return prometheus.NewMetricWithTimestamp(when, m)
}

// Resource is the content of /metrics/resource: processor, memory and swap of
// node, pods and containers, under upstream's names.
func (c *Collector) Resource(ctx context.Context) prometheus.Collector {
	return resourceMetrics{ctx, c}
}

type resourceMetrics struct {
	ctx context.Context
	*Collector
}

// Describe sends nothing: what is collected is known only then.
func (resourceMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m resourceMetrics) Collect(out chan<- prometheus.Metric) {
	var (
		container     = []string{"container", "pod", "namespace"}
		pod           = []string{"pod", "namespace"}
		nodeCPU       = counter("node_cpu_usage_seconds_total", "Cumulative cpu time consumed by the node in core-seconds")
		nodeMemory    = gauge("node_memory_working_set_bytes", "Current working set of the node in bytes")
		nodeSwap      = gauge("node_swap_usage_bytes", "Current swap usage of the node in bytes. Reported only on non-windows systems")
		cpu           = counter("container_cpu_usage_seconds_total", "Cumulative cpu time consumed by the container in core-seconds", container...)
		memory        = gauge("container_memory_working_set_bytes", "Current working set of the container in bytes", container...)
		swap          = gauge("container_swap_usage_bytes", "Current amount of the container swap usage in bytes. Reported only on non-windows systems", container...)
		swapLimit     = gauge("container_swap_limit_bytes", "Current amount of the container swap limit in bytes. Reported only on non-windows systems", container...)
		started       = gauge("container_start_time_seconds", "Start time of the container since unix epoch in seconds", container...)
		podCPU        = counter("pod_cpu_usage_seconds_total", "Cumulative cpu time consumed by the pod in core-seconds", pod...)
		podMemory     = gauge("pod_memory_working_set_bytes", "Current working set of the pod in bytes", pod...)
		podSwap       = gauge("pod_swap_usage_bytes", "Current amount of the pod swap usage in bytes. Reported only on non-windows systems", pod...)
		scrapeError   = gauge("scrape_error", "1 if there was an error while getting container metrics, 0 otherwise")
		resourceError = gauge("resource_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise")
	)
	n := m.nodeUsage()
	out <- nodeCPU.at(n.at, seconds(n.cpu))
	out <- nodeMemory.at(n.at, float64(n.workingSet))
	out <- nodeSwap.at(n.at, float64(n.swapUsed))
	for _, p := range m.Runtime.Usage(m.ctx, false) {
		if p.Cgroup != "" {
			out <- podCPU.at(p.At, seconds(p.CPUNanoseconds), p.Name, p.Namespace)
			out <- podMemory.at(p.At, float64(p.WorkingSet), p.Name, p.Namespace)
			out <- podSwap.at(p.At, float64(p.SwapUsage), p.Name, p.Namespace)
		}
		for i := range p.Containers {
			u := &p.Containers[i]
			labels := []string{u.Name, p.Name, p.Namespace}
			out <- started.at(time.Time{}, since1970(u.StartedAt), labels...)
			out <- cpu.at(u.At, seconds(u.CPUNanoseconds), labels...)
			out <- memory.at(u.At, float64(u.WorkingSet), labels...)
			out <- swap.at(u.At, float64(u.SwapUsage), labels...)
			if u.SwapLimit > 0 {
				out <- swapLimit.at(u.At, float64(u.SwapLimit), labels...)
			}
		}
	}
	out <- scrapeError.at(time.Time{}, 0)
	out <- resourceError.at(time.Time{}, 0)
}

func seconds(nanoseconds uint64) float64 { return float64(nanoseconds) / 1e9 }

func since1970(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }
