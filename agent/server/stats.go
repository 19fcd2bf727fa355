package server

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/skiff-run/skiff/agent/usage"
)

// Usage tells what the node and its pods use.
type Usage interface {
	Summary(ctx context.Context, brief bool) *stats.Summary
	Top(ctx context.Context) *usage.Top
	Resource(ctx context.Context) prometheus.Collector
	CAdvisor(ctx context.Context) prometheus.Collector
}

// summary answers with what the node and its pods use.
func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	brief := false
	if text := r.FormValue("only_cpu_and_memory"); text != "" {
		var err error
		if brief, err = strconv.ParseBool(text); err != nil {
			http.Error(w, "only_cpu_and_memory: must be true or false, not "+strconv.Quote(text), http.StatusBadRequest)
			return
		}
	}
	writeJSON(w, s.Usage.Summary(r.Context(), brief))
}

// top answers with the figures behind kubectl top.
func (s *Server) top(w http.ResponseWriter, r *http.Request) { writeJSON(w, s.Usage.Top(r.Context())) }

// scrape serves what one collector finds at each request; nothing of it is kept.
func scrape(collector func(context.Context) prometheus.Collector, logger *slog.Logger) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		registry := prometheus.NewRegistry()
		registry.MustRegister(collector(r.Context()))
		promhttp.HandlerFor(registry, promhttp.HandlerOpts{
			ErrorHandling: promhttp.ContinueOnError, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
		}).ServeHTTP(w, r)
	}
}
