package iptables

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics bear kube-proxy's names where it has them.
type metrics struct {
	failures, timeouts prometheus.Counter
	rules              *prometheus.GaugeVec
}

func newMetrics() *metrics {
	return &metrics{
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubeproxy_sync_proxy_rules_iptables_restore_failures_total",
			Help: "Times that iptables did not take the rules; the sync is tried again.",
		}),
		timeouts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "skiff_proxy_iptables_lock_timeouts_total",
			Help: "Times that another program held the lock of iptables for longer than a sync waits; the sync is tried again.",
		}),
		rules: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubeproxy_sync_proxy_rules_iptables_total",
			Help: "Rules of services in the kernel.",
		}, []string{"table", "ip_family"}),
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.failures, m.timeouts, m.rules}
}

func (m *metrics) failed(err error) {
	m.failures.Inc()
	if errors.Is(err, ErrLocked) {
		m.timeouts.Inc()
	}
}

func (m *metrics) programmed(f *family) {
	counts := map[string]int{nat: 0, filter: 0}
	for key, rules := range f.fixed {
		counts[key.table] += len(rules)
	}
	for key, rules := range f.shared {
		counts[key.table] += len(rules)
	}
	for _, p := range f.state.programmed {
		for _, c := range p.chains {
			counts[nat] += len(c.rules)
		}
	}
	for table, n := range counts {
		m.rules.WithLabelValues(table, string(f.kind)).Set(float64(n))
	}
}
