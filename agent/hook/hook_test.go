package hook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

type fakeExec struct{ err error }

func (f fakeExec) ExecSync(context.Context, string, []string, time.Duration) (stdout, stderr []byte, err error) {
	return []byte("out "), []byte("errors"), f.err
}

type events struct {
	mu    sync.Mutex
	lines []string
}

func (e *events) Eventf(_ runtime.Object, _, reason, format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines = append(e.lines, reason+" "+fmt.Sprintf(format, args...))
}

func testPod() (*v1.Pod, *v1.Container) {
	pod := &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Name: "app"}}}}
	pod.Name, pod.Namespace, pod.UID = "web", "default", "u"
	return pod, &pod.Spec.Containers[0]
}

func TestHTTPHooks(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, fmt.Sprintf("%s %s %s auth=%q", r.URL.Path, r.UserAgent(), r.Header.Get("X-A"), r.Header.Get("Authorization")))
		mu.Unlock()
		w.WriteHeader(http.StatusTeapot)
	}))
	t.Cleanup(server.Close)
	host, text, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	log := &events{}
	r := NewRunner(fakeExec{}, log)
	pod, container := testPod()
	headers := []v1.HTTPHeader{{Name: "X-A", Value: "b"}, {Name: "Authorization", Value: "secret"}}
	action := &v1.HTTPGetAction{Path: "/stop", Port: intstr.FromInt(port), HTTPHeaders: headers}
	// An answer is an answer, whatever its status.
	if _, err := r.Run(t.Context(), pod, container, "id", host, &v1.LifecycleHandler{HTTPGet: action}); err != nil {
		t.Error(err)
	}
	action.Scheme = v1.URISchemeHTTPS
	if _, err := r.Run(t.Context(), pod, container, "id", host, &v1.LifecycleHandler{HTTPGet: action}); err != nil {
		t.Errorf("a server without TLS: %v", err)
	}
	want := []string{`/stop kube-lifecycle/1.37 b auth="secret"`, `/stop kube-lifecycle/1.37 b auth=""`}
	if strings.Join(seen, "\n") != strings.Join(want, "\n") {
		t.Errorf("seen %q, want %q", seen, want)
	}
	if want := "LifecycleHTTPFallback request to HTTPS lifecycle hook " + server.Listener.Addr().String() + " got HTTP response, retry with HTTP succeeded"; len(log.lines) != 1 || log.lines[0] != want {
		t.Errorf("events %q, want %q", log.lines, want)
	}
	server.Close()
	if message, err := r.Run(t.Context(), pod, container, "id", host, &v1.LifecycleHandler{HTTPGet: action}); err == nil || !strings.HasPrefix(message, `HTTP lifecycle hook (/stop) for Container "app" in Pod "web_default(u)" failed - error: `) {
		t.Errorf("a server that is gone: %q, %v", message, err)
	}
	if _, err := r.Run(t.Context(), pod, container, "id", "", &v1.LifecycleHandler{HTTPGet: &v1.HTTPGetAction{Port: intstr.FromInt(1)}}); err == nil {
		t.Error("a pod without address was asked")
	}
}

func TestCommandHooks(t *testing.T) {
	t.Parallel()
	pod, container := testPod()
	handler := &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"bye"}}}
	if _, err := NewRunner(fakeExec{}, &events{}).Run(t.Context(), pod, container, "id", "", handler); err != nil {
		t.Error(err)
	}
	message, err := NewRunner(fakeExec{errors.New("exit 1")}, &events{}).Run(t.Context(), pod, container, "id", "", handler)
	if want := `Exec lifecycle hook ([bye]) for Container "app" in Pod "web_default(u)" failed - error: exit 1, message: "out errors"`; err == nil || message != want {
		t.Errorf("got %q, %v; want %q", message, err, want)
	}
	// The old TCP handler does nothing but fail.
	if _, err := NewRunner(fakeExec{}, &events{}).Run(t.Context(), pod, container, "id", "", &v1.LifecycleHandler{TCPSocket: &v1.TCPSocketAction{}}); err == nil || !strings.HasPrefix(err.Error(), "invalid handler") {
		t.Errorf("a TCP handler: %v", err)
	}
}

func TestSleepHooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pod, container := testPod()
		r := NewRunner(fakeExec{}, &events{})
		began := time.Now()
		if _, err := r.Run(t.Context(), pod, container, "id", "", &v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: 7}}); err != nil || time.Since(began) != 7*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := r.Run(ctx, pod, container, "id", "", &v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: 7}}); err == nil || err.Error() != "container terminated before sleep hook finished" {
			t.Errorf("got %v", err)
		}
	})
}
