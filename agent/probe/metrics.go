package probe

import (
	"github.com/prometheus/client_golang/prometheus"
)

// count must be called with the manager's mu held.
func (r *run) count(good, known bool) {
	switch {
	case !known:
		r.unknown++
	case good:
		r.successful++
	default:
		r.failed++
	}
}

// probeTotal is upstream's metric.
func probeTotal() *prometheus.Desc {
	return prometheus.NewDesc("prober_probe_total", "Cumulative number of a liveness, readiness or startup probe for a container by result.",
		[]string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"}, nil)
}

// Describe implements prometheus.Collector.
func (m *Manager) Describe(out chan<- *prometheus.Desc) { out <- probeTotal() }

// Collect implements prometheus.Collector: the probes of the containers that run.
func (m *Manager) Collect(out chan<- prometheus.Metric) {
	desc := probeTotal()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.probes {
		for kind, r := range c.runs {
			if r.target.pod == nil {
				continue
			}
			for result, count := range map[string]uint64{"successful": r.successful, "failed": r.failed, "unknown": r.unknown} {
				if count > 0 {
					out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(count),
						kind.String(), result, r.target.container.Name, r.target.pod.Name, r.target.pod.Namespace, string(r.target.pod.UID))
				}
			}
		}
	}
}
