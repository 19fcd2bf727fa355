package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
// balancers and supervisors, /metrics for Prometheus, /proxyMode for people.
type health struct {
	mode     string
	lastSync atomic.Pointer[time.Time]
	// pending is when the oldest change came that is not programmed yet; nil for none.
	pending atomic.Pointer[time.Time]
	// eligible says whether the node should get new connections.
	eligible atomic.Bool
	registry *prometheus.Registry
	duration prometheus.Histogram
	restored prometheus.Counter
}

// patience is how long a change may wait to be programmed: as kube-proxy,
// twice its sync period.
const patience = time.Minute

func newHealth(mode string) *health {
	h := &health{
		mode:     mode,
		registry: prometheus.NewRegistry(),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "kubeproxy_sync_proxy_rules_duration_seconds",
			Help:    "Time to bring the kernel to the desired state, in seconds.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		restored: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "skiff_proxy_restored_rules_total",
			Help: "Times that somebody else had changed the rules of services and all were written anew.",
		}),
	}
	h.eligible.Store(true)
	h.registry.MustRegister(h.duration, h.restored, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return h
}

// noticed says that there is a change to program.
func (h *health) noticed() {
	now := time.Now()
	h.pending.CompareAndSwap(nil, &now)
}

// pendingSince is to be read before the state is, and handed to synced.
func (h *health) pendingSince() *time.Time { return h.pending.Load() }

// synced says that everything is programmed that was noticed when pendingSince
// returned pending.
func (h *health) synced(duration time.Duration, pending *time.Time) {
	now := time.Now()
	h.lastSync.Store(&now)
	h.pending.CompareAndSwap(pending, nil)
	h.duration.Observe(duration.Seconds())
}

// healthy says whether the rules have been programmed and no change waits too long.
func (h *health) healthy() bool {
	pending := h.pending.Load()
	return h.lastSync.Load() != nil && (pending == nil || time.Since(*pending) < patience)
}

// answer writes the times as kube-proxy reports them.
func (h *health) answer(w http.ResponseWriter, well bool) {
	body := map[string]any{"currentTime": time.Now(), "nodeEligible": h.eligible.Load()}
	if last := h.lastSync.Load(); last != nil {
		body["lastUpdated"] = *last
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !well {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	// The client is gone when this fails.
	_ = json.NewEncoder(w).Encode(body)
}

// serve answers on both addresses until ctx ends.
func (h *health) serve(ctx context.Context, healthAddress, metricsAddress string) error {
	alive := http.NewServeMux()
	// Load balancers ask healthz whether the node should get connections,
	// supervisors livez whether the proxy works.
	alive.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { h.answer(w, h.healthy() && h.eligible.Load()) })
	alive.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { h.answer(w, h.healthy()) })
	metrics := http.NewServeMux()
	metrics.HandleFunc("/proxyMode", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, h.mode) // the client is gone when this fails
	})
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
