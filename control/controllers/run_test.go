package controllers

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/skiff-run/skiff/control/controllers/nodeipam"
	"github.com/skiff-run/skiff/internal/testenv"
)

// TestRunEndsWithItsContext starts everything on an API that is down and stops it
// again: it must end, and leave no goroutine behind.
func TestRunEndsWithItsContext(t *testing.T) {
	// Not parallel, for it counts goroutines.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "down", http.StatusServiceUnavailable)
	}))
	defer server.Close()
	before := runtime.NumGoroutine()
	transport := &http.Transport{}
	asked := make(chan string, 100)
	config := func(serviceAccount string) *rest.Config {
		asked <- serviceAccount
		return &rest.Config{Host: server.URL, Transport: transport}
	}
	client, err := kubernetes.NewForConfig(config("informers"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{
			ClientFor: config, Informers: informers.NewSharedInformerFactory(client, 0), Logger: slog.New(slog.DiscardHandler),
			RootCA:   func() ([]byte, error) { return []byte("CA"), nil },
			PodCIDRs: []nodeipam.Pool{{Range: netip.MustParsePrefix("10.244.0.0/16"), NodeMask: 24}},
		})
	}()
	for range len(all) + 1 {
		<-asked
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(limit):
		t.Fatal("it does not end")
	}
	testenv.Eventually(t, limit, func() bool {
		transport.CloseIdleConnections()
		return runtime.NumGoroutine() <= before+2 // The server's own, for idle connections.
	}, "goroutines are left behind")
}
