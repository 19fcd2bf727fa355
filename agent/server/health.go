package server

import (
	"net/http"

	"k8s.io/apiserver/pkg/server/healthz"
)

// installHealth serves /healthz and a path for each check below it.
func (s *Server) installHealth(mux *http.ServeMux) {
	healthz.InstallHandler(mux, healthz.PingHealthz, healthz.LogHealthz, healthz.NamedCheck("syncloop", func(*http.Request) error {
		if s.Healthy == nil {
			return nil
		}
		return s.Healthy()
	}))
}

// configz answers with the configuration in force, as the kubelet names it.
func (s *Server) configz(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]any{"kubeletconfig": s.Configuration()})
}

// installSystemLogs serves the logs of the machine.
func (s *Server) installSystemLogs(mux *http.ServeMux) {
	if s.SystemLogDir == "" {
		mux.HandleFunc("/logs/", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "logs endpoint is disabled.", http.StatusMethodNotAllowed)
		})
		return
	}
	mux.Handle("GET /logs/", http.StripPrefix("/logs/", http.FileServer(http.Dir(s.SystemLogDir))))
}
