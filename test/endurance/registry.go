package endurance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// illness is what is wrong with a registry at present.
type illness int

const (
	healthy illness = iota
	corrupt         // the bytes of layers are not what their digest says
	longer          // layers have more bytes than their manifest says
	shorter         // connections end before a layer does
	refused         // the registry wants credentials nobody has
	slow            // layers come a little at a time
)

// sickRegistry serves images, in all the ways a registry can go wrong.
type sickRegistry struct {
	address string
	server  *http.Server

	mu  sync.Mutex // guards ill
	ill illness
}

// newSickRegistry serves at an address on the switch of a node's network.
func newSickRegistry(n *node, port int) (*sickRegistry, error) {
	r := &sickRegistry{address: fmt.Sprintf("%s:%d", n.fleet.Gateway(), port)}
	listener, err := n.fleet.Switch.Listen(context.Background(), "tcp", r.address)
	if err != nil {
		return nil, fmt.Errorf("serve images: %w", err)
	}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	r.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) { r.serve(inner, w, request) })}
	go func() { _ = r.server.Serve(listener) }() // until Close
	return r, nil
}

func (r *sickRegistry) falls(ill illness) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ill = ill
}

func (r *sickRegistry) serve(inner http.Handler, w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	ill := r.ill
	r.mu.Unlock()
	if ill == healthy || request.Method == http.MethodPut || request.Method == http.MethodPost || request.Method == http.MethodPatch {
		inner.ServeHTTP(w, request)
		return
	}
	if ill == refused {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"no pull access"}]}`)
		return
	}
	if request.Method != http.MethodGet || !strings.Contains(request.URL.Path, "/blobs/") {
		inner.ServeHTTP(w, request)
		return
	}
	record := httptest.NewRecorder()
	request.Header.Del("Range")
	inner.ServeHTTP(record, request)
	body := record.Body.Bytes()
	if len(body) < 64<<10 { // a configuration, not a layer
		w.WriteHeader(record.Code)
		_, _ = w.Write(body)
		return
	}
	switch ill {
	case corrupt:
		body[len(body)/2] ^= 0xff
	case longer:
		body = append(body, make([]byte, 4096)...)
	case shorter:
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		body = body[:len(body)/2]
	}
	w.WriteHeader(record.Code)
	if ill != slow {
		_, _ = w.Write(body)
		return
	}
	for len(body) > 0 {
		size := min(len(body), 64<<10)
		if _, err := w.Write(body[:size]); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		body = body[size:]
		wait(request.Context(), 100*time.Millisecond)
	}
}

// push makes an image of busybox and a layer of random bytes, and returns its name.
func (r *sickRegistry) push(ctx context.Context, n *node, repository string, size int64) (string, error) {
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		return n.fleet.Dial(ctx, network, address)
	}}
	defer transport.CloseIdleConnections()
	options := []remote.Option{remote.WithTransport(transport), remote.WithContext(ctx)}
	base, err := name.ParseReference(fmt.Sprintf("%s:5000/library/busybox:latest", n.fleet.Gateway()), name.Insecure)
	if err != nil {
		return "", err
	}
	image, err := remote.Image(base, options...)
	if err != nil {
		return "", fmt.Errorf("fetch busybox: %w", err)
	}
	layer, err := random.Layer(size, "application/vnd.docker.image.rootfs.diff.tar.gzip")
	if err != nil {
		return "", fmt.Errorf("make a layer: %w", err)
	}
	if image, err = mutate.AppendLayers(image, layer); err != nil {
		return "", fmt.Errorf("make image %s: %w", repository, err)
	}
	reference := r.address + "/" + repository + ":latest"
	parsed, err := name.ParseReference(reference, name.Insecure)
	if err != nil {
		return "", err
	}
	if err := remote.Write(parsed, image, options...); err != nil {
		return "", fmt.Errorf("push image %s: %w", repository, err)
	}
	return reference, nil
}

func (r *sickRegistry) close() error {
	if err := r.server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
