package apiserver

import (
	"bufio"
	"context"
	"net"
	"net/http"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/responsewriter"
	"k8s.io/apiserver/pkg/server/filters"
	"k8s.io/streaming/pkg/httpstream"

	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"github.com/skiff-run/skiff/internal/operator"
)

// longRunning says which requests last as long as their clients like.
func longRunning(r *http.Request, info *apirequest.RequestInfo) bool {
	return basicLongRunning(r, info) || !info.IsResourceRequest && info.Path == operator.SnapshotPath
}

var basicLongRunning = filters.BasicLongRunningRequestCheck(
	sets.NewString("watch", "proxy"), sets.NewString("attach", "exec", "proxy", "log", "portforward"))

// endingWithServer ends watches, logs and streams as soon as the server begins
// to stop, so that their clients go to another server at once instead of holding
// this one until it is killed.
func (s *Server) endingWithServer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		info, known := apirequest.RequestInfoFrom(request.Context())
		if !known || !longRunning(request, info) {
			next.ServeHTTP(w, request)
			return
		}
		ctx, cancel := context.WithCancel(request.Context())
		defer cancel()
		defer context.AfterFunc(s.serving, cancel)()
		if httpstream.IsUpgradeRequest(request) {
			w = responsewriter.WrapForHTTP1Or2(&endingStream{ResponseWriter: w, ctx: ctx})
		}
		next.ServeHTTP(w, request.WithContext(ctx))
	})
}

// endingStream closes the connection of a stream when ctx ends: whoever has
// taken it over (exec, attach, port-forward) reads and writes without asking ctx.
type endingStream struct {
	http.ResponseWriter
	ctx context.Context
}

// Hijack implements http.Hijacker.
func (w *endingStream) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	connection, buffer, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		context.AfterFunc(w.ctx, func() { connection.Close() })
	}
	return connection, buffer, err
}

// Unwrap implements responsewriter.UserProvidedDecorator.
func (w *endingStream) Unwrap() http.ResponseWriter { return w.ResponseWriter }
