package dns

import (
	"time"

	miekg "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics bear CoreDNS' names, which dashboards know.
type metrics struct {
	requests   *prometheus.CounterVec
	responses  *prometheus.CounterVec
	duration   prometheus.Histogram
	hits       *prometheus.CounterVec
	misses     prometheus.Counter
	prefetches prometheus.Counter
	stale      prometheus.Counter
	upstream   *prometheus.HistogramVec
	entries    prometheus.GaugeFunc
}

// latencies are the buckets of CoreDNS.
var latencies = prometheus.ExponentialBuckets(0.00025, 2, 16)

func newMetrics(entries func() int) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coredns_dns_requests_total", Help: "DNS requests by zone (the cluster's, or . for others), protocol and type.",
		}, []string{"zone", "proto", "type"}),
		responses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coredns_dns_responses_total", Help: "DNS responses by zone and code.",
		}, []string{"zone", "rcode"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "coredns_dns_request_duration_seconds", Help: "Time to answer a request, in seconds.", Buckets: latencies,
		}),
		hits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coredns_cache_hits_total", Help: "Answers from the cache: success or denial.",
		}, []string{"type"}),
		misses:     counter("coredns_cache_misses_total", "Questions that the cache could not answer."),
		prefetches: counter("coredns_cache_prefetch_total", "Popular answers that were fetched again before their end."),
		stale:      counter("coredns_cache_served_stale_total", "Answers past their end, given because no server answered."),
		upstream: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "coredns_proxy_request_duration_seconds", Help: "Time that servers for other names took, in seconds.", Buckets: latencies,
		}, []string{"to", "rcode"}),
		entries: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "coredns_cache_entries", Help: "Answers in the cache."}, func() float64 { return float64(entries()) }),
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.responses, m.duration, m.hits, m.misses, m.prefetches, m.stale, m.upstream, m.entries}
}

func (m *metrics) hit(reply *miekg.Msg) {
	kind := "success"
	if len(reply.Answer) == 0 || reply.Rcode != miekg.RcodeSuccess {
		kind = "denial"
	}
	m.hits.WithLabelValues(kind).Inc()
}

func (m *metrics) forwarded(server string, reply *miekg.Msg, took time.Duration) {
	code := "none"
	if reply != nil {
		code = rcode(reply.Rcode)
	}
	m.upstream.WithLabelValues(server, code).Observe(took.Seconds())
}

// answered counts one request. Types that nobody uses are other, so that
// clients cannot make series without end.
func (m *metrics) answered(zone, protocol string, query, reply *miekg.Msg, took time.Duration) {
	kind := "other"
	if len(query.Question) == 1 {
		switch query.Question[0].Qtype {
		case miekg.TypeA, miekg.TypeAAAA, miekg.TypeSRV, miekg.TypePTR, miekg.TypeCNAME, miekg.TypeTXT, miekg.TypeMX, miekg.TypeNS, miekg.TypeSOA, miekg.TypeHTTPS:
			kind = miekg.TypeToString[query.Question[0].Qtype]
		}
	}
	m.requests.WithLabelValues(zone, protocol, kind).Inc()
	m.responses.WithLabelValues(zone, rcode(reply.Rcode)).Inc()
	m.duration.Observe(took.Seconds())
}

func rcode(code int) string {
	if text, known := miekg.RcodeToString[code]; known {
		return text
	}
	return "other"
}
