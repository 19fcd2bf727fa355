package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
)

// health tells others how the proxy does: /healthz and /livez for load
// balancers and supervisors, /metrics for Prometheus.
type health struct {
	lastSync atomic.Pointer[time.Time]
	registry *prometheus.Registry
	duration prometheus.Histogram
}

func newHealth() *health {
	h := &health{
		registry: prometheus.NewRegistry(),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "kubeproxy_sync_proxy_rules_duration_seconds",
			Help:    "Time to bring the kernel to the desired state, in seconds.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
	}
	h.registry.MustRegister(h.duration, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return h
}

func (h *health) synced(duration time.Duration) {
	now := time.Now()
	h.lastSync.Store(&now)
	h.duration.Observe(duration.Seconds())
}

// ServeHTTP answers 200 once the rules have been programmed, 503 before, with
// the times as kube-proxy reports them.
func (h *health) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	last := h.lastSync.Load()
	status := http.StatusServiceUnavailable
	body := map[string]any{"currentTime": time.Now(), "nodeEligible": true}
	if last != nil {
		status = http.StatusOK
		body["lastUpdated"] = *last
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// The client is gone when this fails.
	_ = json.NewEncoder(w).Encode(body)
}

// serve answers on both addresses until ctx ends.
func (h *health) serve(ctx context.Context, healthAddress, metricsAddress string) error {
	alive := http.NewServeMux()
	alive.Handle("/healthz", h)
	alive.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	metrics := http.NewServeMux()
	metrics.Handle("/metrics", promhttp.HandlerFor(h.registry, promhttp.HandlerOpts{}))

	group, ctx := errgroup.WithContext(ctx)
	for _, each := range []struct {
		address string
		handler http.Handler
	}{{healthAddress, alive}, {metricsAddress, metrics}} {
		if each.address == "" {
			continue
		}
		listener, err := net.Listen("tcp", each.address)
		if err != nil {
			return fmt.Errorf("serve health or metrics at %s: %w", each.address, err)
		}
		server := &http.Server{Handler: each.handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second}
		group.Go(func() error {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve at %s: %w", each.address, err)
			}
			return nil
		})
		group.Go(func() error {
			<-ctx.Done()
			return server.Close()
		})
	}
	return group.Wait()
}
