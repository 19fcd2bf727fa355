package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
)

// Runtime is what the endpoint needs of the runtime.
type Runtime interface {
	streaming.Runtime
	ContainerStatus(ctx context.Context, containerID string, verbose bool) (*runtimeapi.ContainerStatusResponse, error)
	ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error)
}

// Pods are the pods of this node with their newest status.
type Pods interface {
	Pods() []*v1.Pod
	Pod(namespace, name string) (*v1.Pod, bool)
}

// Config of a Server.
type Config struct {
	NodeName      string
	Address       string
	Certificate   func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Authenticator authenticator.Request
	Authorizer    authorizer.Authorizer
	// ClientTLS adds the CA of clients to the TLS configuration, may be nil.
	ClientTLS func(*tls.Config)
	Runtime   Runtime
	Pods      Pods
	Usage     Usage
	// Metrics is served at /metrics, Probes at /metrics/probes.
	Metrics, Probes http.Handler
	// Configuration is served at /configz.
	Configuration func() any
	// Healthy says whether the agent's loops go round, for /healthz.
	Healthy func() error
	// SystemLogDir is served at /logs/; not at all when empty.
	SystemLogDir string
	Logger       *slog.Logger
}

// Server is the endpoint.
type Server struct{ Config }

// New returns a server.
func New(c Config) *Server { return &Server{c} }

// streamIdle is how long an idle exec or port-forward stays open.
const streamIdle = 4 * time.Hour

// Run serves until ctx ends. ready is called with the address once it listens.
func (s *Server) Run(ctx context.Context, ready func(net.Addr)) error {
	config := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.Certificate, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"}}
	if s.ClientTLS != nil {
		s.ClientTLS(config)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.Address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.Address, err)
	}
	server := &http.Server{
		Handler: s.Handler(), TLSConfig: config, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 90 * time.Second,
		ErrorLog: log.New(debugWriter{s.Logger}, "", 0),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		// Streams have no end of their own; they end with the agent.
		if err := server.Close(); err != nil {
			s.Logger.Debug("close the HTTPS endpoint", "error", err)
		}
	})
	ready(listener.Addr())
	err = server.ServeTLS(listener, "", "")
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve HTTPS on %s: %w", s.Address, err)
}

// debugWriter keeps handshakes of port scanners out of the log.
type debugWriter struct{ logger *slog.Logger }

func (w debugWriter) Write(p []byte) (int, error) {
	w.logger.Debug("https endpoint", "message", string(p))
	return len(p), nil
}

// Handler returns the whole endpoint, authentication included.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	s.installHealth(mux)
	mux.HandleFunc("GET /configz", s.configz)
	s.installSystemLogs(mux)
	mux.HandleFunc("GET /pods", s.pods)
	mux.HandleFunc("GET /pods/{$}", s.pods)
	mux.HandleFunc("GET /runningpods/{$}", s.runningPods)
	mux.HandleFunc("GET /runningpods", s.runningPods)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.containerLogs)
	mux.HandleFunc("GET /stats/summary", s.summary)
	mux.HandleFunc("GET /stats/summary/{$}", s.summary)
	mux.HandleFunc("GET /metrics/usage", s.top)
	mux.HandleFunc("GET /metrics/resource", scrape(s.Usage.Resource, s.Logger))
	mux.HandleFunc("GET /metrics/cadvisor", scrape(s.Usage.CAdvisor, s.Logger))
	mux.Handle("GET /metrics", s.Metrics)
	mux.Handle("GET /metrics/probes", s.Probes)
	streams := webSockets{s.streams()}
	for _, verb := range []string{"/exec/", "/attach/", "/portForward/"} {
		mux.Handle(verb, streams)
	}
	for _, pattern := range containerPatterns() {
		mux.HandleFunc("POST /run"+pattern, s.runCommand)
	}
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return s.authorized(mux)
}

// containerPatterns are the two forms in which a path names a container.
func containerPatterns() []string {
	return []string{"/{namespace}/{pod}/{container}", "/{namespace}/{pod}/{uid}/{container}"}
}

// streams serves exec, attach and port-forward over SPDY and the older WebSocket
// protocols.
func (s *Server) streams() http.Handler {
	mux := http.NewServeMux()
	for _, pattern := range containerPatterns() {
		mux.HandleFunc("/exec"+pattern, s.exec)
		mux.HandleFunc("/attach"+pattern, s.attach)
	}
	mux.HandleFunc("/portForward/{namespace}/{pod}", s.portForward)
	mux.HandleFunc("/portForward/{namespace}/{pod}/{uid}", s.portForward)
	return mux
}
