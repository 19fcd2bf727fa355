package raftstore

import "github.com/prometheus/client_golang/prometheus"

// metrics are the measurements taken as things happen; all else is read from
// Status when somebody asks.
type metrics struct {
	writes  prometheus.Histogram
	batches prometheus.Histogram
	// diskWrites and slowHandovers tell of the disk below the log.
	diskWrites    prometheus.Histogram
	slowHandovers prometheus.Counter
}

func newMetrics() *metrics {
	return &metrics{
		writes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "skiff_store_write_seconds",
			Help:    "Time from a write's request to its answer, durable and applied.",
			Buckets: prometheus.ExponentialBuckets(0.000_25, 2, 14),
		}),
		diskWrites: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "skiff_store_disk_write_seconds",
			Help:    "Time one write of the log took until it was durable.",
			Buckets: prometheus.ExponentialBuckets(0.000_125, 2, 15),
		}),
		slowHandovers: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "skiff_store_slow_disk_handovers_total",
			Help: "How often this member handed leadership over because its disk was slow.",
		}),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "skiff_store_batch_commands",
			Help:    "Commands which shared one log entry.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
	}
}

// gauge is one number of Status.
type gauge struct {
	desc  *prometheus.Desc
	value func(*Status) float64
}

func gauges() []gauge {
	g := func(name, help string, value func(*Status) float64) gauge {
		return gauge{prometheus.NewDesc("skiff_store_"+name, help, nil, nil), value}
	}
	return []gauge{
		g("leader", "1 if this member leads.", func(s *Status) float64 {
			if s.Leader {
				return 1
			}
			return 0
		}),
		g("term", "Raft term.", func(s *Status) float64 { return float64(s.Term) }),
		g("log_index", "Last index of the log.", func(s *Status) float64 { return float64(s.LogIndex) }),
		g("revision", "Newest revision applied here.", func(s *Status) float64 { return float64(s.Revision) }),
		g("compact_revision", "Oldest readable revision.", func(s *Status) float64 { return float64(s.CompactRevision) }),
		g("keys", "Live keys.", func(s *Status) float64 { return float64(s.Keys) }),
		g("bytes", "Size of live keys and values.", func(s *Status) float64 { return float64(s.Bytes) }),
		g("history_events", "Events kept for watches and old reads.", func(s *Status) float64 { return float64(s.HistoryEvents) }),
		g("disk_slow", "1 if the disk below the log is slow.", func(s *Status) float64 {
			if s.SlowDisk {
				return 1
			}
			return 0
		}),
		g("history_bytes", "Memory the kept events cost.", func(s *Status) float64 { return float64(s.HistoryBytes) }),
	}
}

// Collector gives the store's metrics to a prometheus registry.
func (s *Store) Collector() prometheus.Collector { return &collector{store: s, gauges: gauges()} }

type collector struct {
	store  *Store
	gauges []gauge
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	c.store.metrics.writes.Describe(out)
	c.store.metrics.batches.Describe(out)
	c.store.metrics.diskWrites.Describe(out)
	c.store.metrics.slowHandovers.Describe(out)
	for _, g := range c.gauges {
		out <- g.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	c.store.metrics.writes.Collect(out)
	c.store.metrics.batches.Collect(out)
	c.store.metrics.diskWrites.Collect(out)
	c.store.metrics.slowHandovers.Collect(out)
	status := c.store.Status()
	for _, g := range c.gauges {
		out <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.value(&status))
	}
}
