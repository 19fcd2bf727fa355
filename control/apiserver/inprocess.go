package apiserver

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"
)

// insider is the context key of the user a request of this process is made as.
type insider struct{}

// insideAuthenticator believes what an in-process request says of its user:
// nobody outside can set a context value.
type insideAuthenticator struct{}

// AuthenticateRequest implements authenticator.Request.
func (insideAuthenticator) AuthenticateRequest(request *http.Request) (*authenticator.Response, bool, error) {
	who, inside := request.Context().Value(insider{}).(user.Info)
	if !inside {
		return nil, false, nil
	}
	return &authenticator.Response{User: who}, true, nil
}

// ClientFor returns the configuration of a client that acts as the user through
// the whole handler chain: same authorization, admission and audit as anybody,
// without a socket.
func (s *Server) ClientFor(who user.Info) *rest.Config {
	return &rest.Config{
		Host:      "https://in-process",
		Transport: &handlerTransport{handler: s.handler, who: who},
		QPS:       -1,
		// That Endpoints are deprecated is no news to those who keep them.
		WarningHandler: rest.NoWarnings{},
		ContentConfig: rest.ContentConfig{
			ContentType: "application/vnd.kubernetes.protobuf", AcceptContentTypes: "application/vnd.kubernetes.protobuf,application/json",
		},
	}
}

// handlerTransport calls the handler for each request.
type handlerTransport struct {
	handler func() http.Handler
	who     user.Info
}

// RoundTrip implements http.RoundTripper. It returns when the handler has
// written its header; the handler goes on in a goroutine of its own that ends
// with the request's context or when the body is closed.
func (t *handlerTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(context.WithValue(request.Context(), insider{}, t.who))
	inner := request.Clone(ctx)
	inner.RequestURI = (&url.URL{Path: request.URL.Path, RawPath: request.URL.RawPath, RawQuery: request.URL.RawQuery}).RequestURI()
	inner.RemoteAddr = "127.0.0.1:0"
	inner.Host = "in-process"
	if inner.Body == nil {
		inner.Body = http.NoBody
	}
	reader, writer := io.Pipe()
	w := &responseWriter{header: http.Header{}, pipe: writer, ready: make(chan struct{}), closed: ctx.Done()}
	go func() {
		defer cancel()
		// As net/http does for a request from outside: a handler that panics breaks
		// off its answer, often on purpose (http.ErrAbortHandler), not the server.
		// The handler chain has logged what is no purpose.
		defer func() { w.end(recover()) }()
		t.handler().ServeHTTP(w, inner)
	}()
	select {
	case <-w.ready:
	case <-ctx.Done():
		// The handler is told by its context; what it still writes goes nowhere.
		reader.CloseWithError(ctx.Err())
		select {
		case <-w.ready:
		default:
			return nil, context.Cause(ctx)
		}
	}
	if w.failed != nil {
		return nil, w.failed
	}
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Proto: "HTTP/2.0", ProtoMajor: 2, Header: w.sent, ContentLength: -1,
		Body: &body{reader, cancel}, Request: request,
	}, nil
}

// body ends the handler when its reader has had enough.
type body struct {
	*io.PipeReader
	cancel context.CancelFunc
}

// Close implements io.Closer.
func (b *body) Close() error {
	b.cancel()
	return b.PipeReader.Close()
}

// responseWriter hands what a handler writes to the reader of a pipe.
type responseWriter struct {
	header, sent http.Header
	pipe         *io.PipeWriter
	ready        chan struct{}
	once         sync.Once
	status       int
	failed       error // instead of a status; like it, set before ready is closed
	closed       <-chan struct{}
}

// Header implements http.ResponseWriter.
func (w *responseWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. Only the first call counts.
func (w *responseWriter) WriteHeader(status int) {
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		close(w.ready)
	})
}

// end completes the answer or, after a panic, breaks it off.
func (w *responseWriter) end(panicked any) {
	if panicked == nil {
		w.WriteHeader(http.StatusOK)
		w.pipe.Close()
		return
	}
	err := fmt.Errorf("the API server broke off its answer: %v", panicked)
	w.once.Do(func() {
		w.failed = err
		close(w.ready)
	})
	w.pipe.CloseWithError(err)
}

// Write implements http.ResponseWriter.
func (w *responseWriter) Write(data []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.pipe.Write(data)
}

// Flush implements http.Flusher: nothing is held back but the header.
func (w *responseWriter) Flush() { w.WriteHeader(http.StatusOK) }

// CloseNotify implements http.CloseNotifier, by which the handler chain tells
// a writer that can stream from one that cannot.
func (w *responseWriter) CloseNotify() <-chan bool {
	gone := make(chan bool, 1)
	go func() {
		<-w.closed
		gone <- true
	}()
	return gone
}
