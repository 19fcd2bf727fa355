package server

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"sync"

	"k8s.io/apimachinery/pkg/util/proxy"
	streamproxy "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// webSockets lets clients speak today's WebSocket protocols with a handler that
// knows SPDY: v5.channel.k8s.io, which can close standard input, and SPDY in a
// tunnel for port forwarding. Everything else goes straight through.
type webSockets struct{ direct http.Handler }

// ServeHTTP implements http.Handler.
func (h webSockets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case wsstream.IsWebSocketRequestWithStreamCloseProtocol(r):
		options, err := remotecommand.NewOptions(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		inside := serveInside(h.direct)
		defer inside.close()
		streams := streamproxy.Options{Stdin: options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr, Tty: options.TTY}
		streamproxy.NewStreamTranslatorHandler(inside.location(r), inside.transport(), 0, streams).ServeHTTP(w, r)
	case wsstream.IsWebSocketRequestWithTunnelingProtocol(r):
		inside := serveInside(h.direct)
		defer inside.close()
		streamproxy.NewTunnelingHandler(proxy.NewUpgradeAwareHandler(inside.location(r), inside.transport(), false, true, refusal{})).ServeHTTP(w, r)
	default:
		h.direct.ServeHTTP(w, r)
	}
}

// refusal answers what cannot be upgraded.
type refusal struct{}

// Error implements proxy.ErrorResponder.
func (refusal) Error(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

// inside serves a handler to this process alone, through pipes in its memory.
type inside struct {
	server *http.Server
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
	ended  chan struct{}
}

func serveInside(handler http.Handler) *inside {
	i := &inside{server: &http.Server{Handler: handler}, conns: make(chan net.Conn), closed: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(i.ended)
		// It ends with close, which is no error.
		_ = i.server.Serve(i)
	}()
	return i
}

// location is the request's path and query on the inside.
func (i *inside) location(r *http.Request) *url.URL {
	return &url.URL{Scheme: "http", Host: "inside", Path: r.URL.Path, RawQuery: r.URL.RawQuery}
}

func (i *inside) transport() *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		select {
		case i.conns <- theirs:
			return ours, nil
		case <-i.closed:
			return nil, net.ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
}

// Accept, Close and Addr make it the server's listener.
func (i *inside) Accept() (net.Conn, error) {
	select {
	case c := <-i.conns:
		return c, nil
	case <-i.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (i *inside) Close() error {
	i.once.Do(func() { close(i.closed) })
	return nil
}

// Addr implements net.Listener.
func (i *inside) Addr() net.Addr { return insideAddress{} }

type insideAddress struct{}

func (insideAddress) Network() string { return "pipe" }
func (insideAddress) String() string  { return "inside" }

// close ends the server. Streams end with their clients.
func (i *inside) close() {
	_ = i.server.Close()
	<-i.ended
}
