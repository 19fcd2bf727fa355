package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilexec "k8s.io/utils/exec"

	"github.com/skiff-run/skiff/agent/plan"
	"github.com/skiff-run/skiff/agent/podstate"
)

func TestCounter(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		kind     Kind
		spec     v1.Probe
		outcomes string
		want     plan.Result
	}{
		"liveness is good until it fails often enough": {Liveness, v1.Probe{FailureThreshold: 3}, "--", plan.Success},
		"liveness fails after the threshold":           {Liveness, v1.Probe{FailureThreshold: 3}, "---", plan.Failure},
		"a success in between starts counting anew":    {Liveness, v1.Probe{FailureThreshold: 3}, "--+--", plan.Success},
		"readiness is bad until it succeeds":           {Readiness, v1.Probe{}, "", plan.Failure},
		"readiness needs its successes in a row":       {Readiness, v1.Probe{SuccessThreshold: 2}, "+-+", plan.Failure},
		"and then is good":                             {Readiness, v1.Probe{SuccessThreshold: 2, FailureThreshold: 2}, "+-++", plan.Success},
		"startup is unknown before":                    {Startup, v1.Probe{FailureThreshold: 3}, "--", plan.None},
		"startup fails after the threshold":            {Startup, v1.Probe{FailureThreshold: 3}, "---", plan.Failure},
		"startup succeeds once":                        {Startup, v1.Probe{FailureThreshold: 3}, "--+", plan.Success},
	} {
		c := newCounter(test.kind, &test.spec)
		for _, o := range test.outcomes {
			c.add(o == '+')
		}
		if c.result != test.want {
			t.Errorf("%s: %v, want %v", name, c.result, test.want)
		}
	}
}

type fakeExec struct {
	mu    sync.Mutex
	err   error
	calls []time.Time
}

func (f *fakeExec) ExecSync(context.Context, string, []string, time.Duration) ([]byte, []byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, time.Now())
	return []byte("out"), nil, f.err
}

func (f *fakeExec) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
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

func execProbe(period, delay, failures int32) *v1.Probe {
	return &v1.Probe{ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"check"}}}, PeriodSeconds: period, InitialDelaySeconds: delay, FailureThreshold: failures, TimeoutSeconds: 1}
}

func TestProbesRunOnTheirScheduleAndTellOfTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		exec, log, turns := &fakeExec{err: utilexec.CodeExitError{Code: 1}}, &events{}, 0
		m := NewManager(ctx, exec, log, func(types.UID) { turns++ })
		began := time.Now()
		pod := &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Name: "a", ReadinessProbe: execProbe(10, 5, 3), LivenessProbe: execProbe(20, 0, 2), StartupProbe: execProbe(1, 0, 30)}}}}
		pod.UID = "u"
		state := &podstate.Pod{Containers: []podstate.Container{{ID: "id", Name: "a", State: podstate.Running, StartedAt: began}}}
		nothing := func(string) (bool, bool) { return false, false }
		m.Sync(pod, state, "10.0.0.1", nothing)
		time.Sleep(2500 * time.Millisecond)
		synctest.Wait()
		if len(exec.calls) != 3 || m.Startup("id") != plan.None || m.Readiness("id") != plan.None {
			t.Fatalf("%d checks, startup %v: before startup only its own probe runs", len(exec.calls), m.Startup("id"))
		}
		if want := "Unhealthy Startup probe failed: out"; log.lines[0] != want {
			t.Errorf("event %q, want %q", log.lines[0], want)
		}
		exec.set(nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if m.Startup("id") != plan.Success || m.Liveness("id") != plan.Success || turns == 0 {
			t.Fatalf("startup %v, liveness %v: it follows at once", m.Startup("id"), m.Liveness("id"))
		}
		if m.Readiness("id") != plan.None {
			t.Fatal("readiness is checked before its initial delay is over")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if m.Readiness("id") != plan.Success {
			t.Fatal("readiness is not checked after its initial delay")
		}
		exec.set(utilexec.CodeExitError{Code: 1})
		time.Sleep(60 * time.Second)
		synctest.Wait()
		if m.Liveness("id") != plan.Failure || m.Readiness("id") != plan.Failure {
			t.Errorf("liveness %v, readiness %v after a minute of failures", m.Liveness("id"), m.Readiness("id"))
		}
		m.Sync(pod, &podstate.Pod{}, "", nothing)
		count := len(exec.calls)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(exec.calls) != count || m.Liveness("id") != plan.None {
			t.Error("a container that is gone is still probed")
		}
		cancel()
		m.Wait()
	})
}

func TestWhatCannotBeCheckedCountsNeitherWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		exec, log := &fakeExec{err: errors.New("no such runtime")}, &events{}
		m := NewManager(ctx, exec, log, func(types.UID) {})
		pod := &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Name: "a", LivenessProbe: execProbe(1, 0, 2)}}}}
		pod.UID = "u"
		state := &podstate.Pod{Containers: []podstate.Container{{ID: "id", Name: "a", State: podstate.Running, StartedAt: time.Now()}}}
		m.Sync(pod, state, "10.0.0.1", func(string) (bool, bool) { return false, false })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if m.Liveness("id") == plan.Failure || len(exec.calls) < 30 {
			t.Errorf("liveness %v after %d checks that could not be made", m.Liveness("id"), len(exec.calls))
		}
		if want := "Unhealthy Liveness probe errored and resulted in unknown state: no such runtime"; log.lines[0] != want {
			t.Errorf("event %q, want %q", log.lines[0], want)
		}
		cancel()
		m.Wait()
	})
}

func TestAServiceIsAskedForItsHealth(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, healths := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(server, healths)
	healths.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	healths.SetServingStatus("tired", healthpb.HealthCheckResponse_NOT_SERVING)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	bare, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other := grpc.NewServer()
	go func() { _ = other.Serve(bare) }()
	t.Cleanup(other.Stop)
	name := func(s string) *string { return &s }
	for label, test := range map[string]struct {
		at      net.Addr
		service *string
		want    outcome
		output  string
	}{
		"the whole server":   {listener.Addr(), nil, succeeded, "service healthy"},
		"by its empty name":  {listener.Addr(), name(""), succeeded, "service healthy"},
		"one that is not up": {listener.Addr(), name("tired"), failed, `service unhealthy (responded with "NOT_SERVING")`},
		"an unknown one":     {listener.Addr(), name("who"), failed, "error: health rpc probe failed"},
		"without the health protocol": {bare.Addr(), nil, failed,
			"error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service grpc.health.v1.Health"},
	} {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			spec := &v1.Probe{TimeoutSeconds: 5, ProbeHandler: v1.ProbeHandler{GRPC: &v1.GRPCAction{Port: int32(test.at.(*net.TCPAddr).Port), Service: test.service}}}
			got, output, err := newChecker(&fakeExec{}).check(t.Context(), &target{podIP: "127.0.0.1", container: &v1.Container{}, spec: spec})
			if err != nil || got != test.want || !strings.HasPrefix(output, test.output) {
				t.Errorf("%v %q %v, want %v %q", got, output, err, test.want, test.output)
			}
		})
	}
}

func TestWhatAnEarlierAgentFoundHoldsUntilDisproved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := NewManager(ctx, &fakeExec{err: utilexec.CodeExitError{Code: 1}}, &events{}, func(types.UID) {})
		pod := &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Name: "a", ReadinessProbe: execProbe(10, 0, 3)}}}}
		pod.UID = "u"
		state := &podstate.Pod{Containers: []podstate.Container{{ID: "id", Name: "a", State: podstate.Running, StartedAt: time.Now().Add(-time.Hour)}}}
		m.Sync(pod, state, "10.0.0.1", func(string) (bool, bool) { return true, true })
		time.Sleep(19 * time.Second)
		synctest.Wait()
		if m.Readiness("id") != plan.Success {
			t.Error("one failure after the restart of the agent took the pod out of service")
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if m.Readiness("id") != plan.Failure {
			t.Error("three failures did not")
		}
		cancel()
		m.Wait()
	})
}

func TestChecks(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/ok" && strings.HasPrefix(r.UserAgent(), "kube-probe/") && r.Header.Get("X-A") == "b" && r.Host == "example.com":
		case r.URL.Path == "/away":
			http.Redirect(w, r, "http://elsewhere.example/", http.StatusFound)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	host, portText, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		t.Fatal(err)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	get := func(path string) v1.ProbeHandler {
		return v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: path, Port: intstr.FromString("web"), HTTPHeaders: []v1.HTTPHeader{{Name: "X-A", Value: "b"}, {Name: "Host", Value: "example.com"}}}}
	}
	for name, test := range map[string]struct {
		handler v1.ProbeHandler
		exec    error
		want    outcome
		output  string
	}{
		"a good answer":                 {get("/ok"), nil, succeeded, ""},
		"a bad answer":                  {get("/no"), nil, failed, "HTTP probe failed with statuscode: 503"},
		"a redirect to another host":    {get("/away"), nil, warned, "Probe terminated redirects, Response body: "},
		"an open port":                  {v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt(port)}}, nil, succeeded, ""},
		"a closed port":                 {v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt(closed.Addr().(*net.TCPAddr).Port)}}, nil, failed, "connection refused"},
		"a command":                     {execProbe(1, 0, 1).ProbeHandler, nil, succeeded, "out"},
		"a failing command":             {execProbe(1, 0, 1).ProbeHandler, utilexec.CodeExitError{Code: 2}, failed, "out"},
		"a command that takes too long": {execProbe(1, 0, 1).ProbeHandler, status.Error(codes.DeadlineExceeded, "x"), failed, `command timed out: "check" timed out after 1s`},
		"a port without gRPC":           {v1.ProbeHandler{GRPC: &v1.GRPCAction{Port: int32(closed.Addr().(*net.TCPAddr).Port)}}, nil, failed, "timeout: failed to connect service"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newChecker(&fakeExec{err: test.exec})
			target := &target{podIP: host, container: &v1.Container{Ports: []v1.ContainerPort{{Name: "web", ContainerPort: int32(port)}}}, spec: &v1.Probe{ProbeHandler: test.handler, TimeoutSeconds: 1}}
			got, output, err := c.check(t.Context(), target)
			if err != nil || got != test.want || !strings.Contains(output, test.output) {
				t.Errorf("%v %q %v, want %v %q", got, output, err, test.want, test.output)
			}
		})
	}
	if _, err := resolvePort(intstr.FromString("no"), &v1.Container{}); err == nil {
		t.Error("a port that has no name was found")
	}
	if !slices.Contains([]string{"Startup"}, Startup.String()) {
		t.Error("names of kinds")
	}
}
