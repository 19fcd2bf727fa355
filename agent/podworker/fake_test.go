package podworker

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/agent/allocation"
	"github.com/skiff-run/skiff/agent/criconfig"
	"github.com/skiff-run/skiff/agent/hostfiles"
	"github.com/skiff-run/skiff/agent/image"
	"github.com/skiff-run/skiff/agent/plan"
	"github.com/skiff-run/skiff/agent/podstate"
	"github.com/skiff-run/skiff/agent/probe"
	"github.com/skiff-run/skiff/agent/resources"
	"github.com/skiff-run/skiff/agent/volume"
)

// fakeRuntime keeps sandboxes and containers in memory.
type fakeRuntime struct {
	mu         sync.Mutex
	next       int
	sandboxes  map[string]*runtimeapi.PodSandboxStatus
	containers map[string]*fakeContainer
	// wake is called after every change, as events would.
	wake func()
	// stopTakes is how long containers take to end after SIGTERM.
	stopTakes map[string]time.Duration
	calls     []string
}

type fakeContainer struct {
	sandbox string
	status  *runtimeapi.ContainerStatus
}

func newFakeRuntime() *fakeRuntime {
	return &fakeRuntime{sandboxes: map[string]*runtimeapi.PodSandboxStatus{}, containers: map[string]*fakeContainer{}, wake: func() {}, stopTakes: map[string]time.Duration{}}
}

func (f *fakeRuntime) note(format string, args ...any) {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

func (f *fakeRuntime) log() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

func (f *fakeRuntime) RunPodSandbox(_ context.Context, c *runtimeapi.PodSandboxConfig, _ string) (string, error) {
	f.mu.Lock()
	defer f.wake()
	defer f.mu.Unlock()
	f.next++
	id := fmt.Sprintf("sandbox%d", f.next)
	f.note("sandbox")
	f.sandboxes[id] = &runtimeapi.PodSandboxStatus{
		Id: id, Metadata: c.Metadata, Labels: c.Labels, CreatedAt: time.Now().UnixNano(), State: runtimeapi.PodSandboxState_SANDBOX_READY,
		Network: &runtimeapi.PodSandboxNetworkStatus{Ip: "10.244.0.5"},
		Linux:   &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: c.Linux.SecurityContext.NamespaceOptions}},
	}
	return id, nil
}

func (f *fakeRuntime) StopPodSandbox(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.wake()
	defer f.mu.Unlock()
	f.note("stop sandbox")
	f.sandboxes[id].State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	return nil
}

func (f *fakeRuntime) RemovePodSandbox(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("remove sandbox")
	delete(f.sandboxes, id)
	return nil
}

func (f *fakeRuntime) ListPodSandbox(_ context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []*runtimeapi.PodSandbox
	for _, s := range f.sandboxes {
		if matches(filter.GetLabelSelector(), s.Labels) {
			list = append(list, &runtimeapi.PodSandbox{Id: s.Id, Metadata: s.Metadata, State: s.State, Labels: s.Labels})
		}
	}
	return list, nil
}

func matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func (f *fakeRuntime) PodSandboxStatus(_ context.Context, id string, _ bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.sandboxes[id]
	if !ok {
		return nil, status.Error(codes.NotFound, id)
	}
	return &runtimeapi.PodSandboxStatusResponse{Status: s}, nil
}

func (f *fakeRuntime) CreateContainer(_ context.Context, sandbox string, c *runtimeapi.ContainerConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	id := fmt.Sprintf("%s%d", c.Metadata.Name, f.next)
	f.note("create %s/%d", c.Metadata.Name, c.Metadata.Attempt)
	f.containers[id] = &fakeContainer{sandbox: sandbox, status: &runtimeapi.ContainerStatus{
		Id: id, Metadata: c.Metadata, Labels: c.Labels, Annotations: c.Annotations, Image: c.Image, ImageRef: "sha256:1",
		CreatedAt: time.Now().UnixNano(), State: runtimeapi.ContainerState_CONTAINER_CREATED,
	}}
	return id, nil
}

func (f *fakeRuntime) StartContainer(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.wake()
	defer f.mu.Unlock()
	s := f.containers[id].status
	f.note("start %s", s.Metadata.Name)
	s.State, s.StartedAt = runtimeapi.ContainerState_CONTAINER_RUNNING, time.Now().UnixNano()
	return nil
}

func (f *fakeRuntime) UpdateContainerResources(_ context.Context, id string, r *runtimeapi.ContainerResources) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("limit %s to %d shares", f.containers[id].status.Metadata.Name, r.GetLinux().GetCpuShares())
	return nil
}

// exit ends the running container of that name.
func (f *fakeRuntime) exit(name string, code int32) {
	f.mu.Lock()
	for _, c := range f.containers {
		if c.status.Metadata.Name == name && c.status.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			f.end(c, code)
		}
	}
	f.mu.Unlock()
	f.wake()
}

func (f *fakeRuntime) end(c *fakeContainer, code int32) {
	c.status.State, c.status.FinishedAt, c.status.ExitCode = runtimeapi.ContainerState_CONTAINER_EXITED, time.Now().UnixNano(), code
	c.status.Reason = "Completed"
	if code != 0 {
		c.status.Reason = "Error"
	}
}

func (f *fakeRuntime) StopContainer(ctx context.Context, id string, timeout int64) error {
	f.mu.Lock()
	c := f.containers[id]
	f.note("stop %s in %ds", c.status.Metadata.Name, timeout)
	takes := min(f.stopTakes[c.status.Metadata.Name], time.Duration(timeout)*time.Second)
	f.mu.Unlock()
	timer := time.NewTimer(takes)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	f.mu.Lock()
	f.end(c, 143)
	f.mu.Unlock()
	f.wake()
	return nil
}

func (f *fakeRuntime) RemoveContainer(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("remove %s", f.containers[id].status.Metadata.Name)
	delete(f.containers, id)
	return nil
}

func (f *fakeRuntime) ListContainers(_ context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []*runtimeapi.Container
	for id, c := range f.containers {
		if matches(filter.GetLabelSelector(), c.status.Labels) {
			list = append(list, &runtimeapi.Container{Id: id, PodSandboxId: c.sandbox, Labels: c.status.Labels})
		}
	}
	return list, nil
}

func (f *fakeRuntime) ContainerStatus(_ context.Context, id string, _ bool) (*runtimeapi.ContainerStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.containers[id]
	if !ok {
		return nil, status.Error(codes.NotFound, id)
	}
	copied := runtimeapi.ContainerStatus{
		Id: c.status.Id, Metadata: c.status.Metadata, Labels: c.status.Labels, Annotations: c.status.Annotations, Image: c.status.Image, ImageRef: c.status.ImageRef,
		CreatedAt: c.status.CreatedAt, StartedAt: c.status.StartedAt, FinishedAt: c.status.FinishedAt, State: c.status.State, ExitCode: c.status.ExitCode, Reason: c.status.Reason,
	}
	return &runtimeapi.ContainerStatusResponse{Status: &copied}, nil
}

// The other parts do nothing, or what a test tells them.

type fakeCgroups struct{}

func (fakeCgroups) SetPod(context.Context, *v1.Pod, *runtimeapi.LinuxContainerResources) error {
	return nil
}
func (fakeCgroups) MemoryUsage(*v1.Pod, string) (uint64, error) { return 0, nil }
func (fakeCgroups) RemovePod(context.Context, types.UID) error  { return nil }

type fakeVolumes struct {
	dir string
	mu  sync.Mutex
	err error
}

func (f *fakeVolumes) SetUp(context.Context, *v1.Pod, volume.Node) (time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Time{}, f.err
}
func (f *fakeVolumes) TearDown(types.UID) error                                  { return nil }
func (f *fakeVolumes) Remove(types.UID) error                                    { return nil }
func (f *fakeVolumes) PodDir(types.UID) string                                   { return f.dir }
func (f *fakeVolumes) Path(*v1.Pod, string) (string, bool)                       { return "", false }
func (f *fakeVolumes) Device(*v1.Pod, string) (string, bool)                     { return "", false }
func (f *fakeVolumes) SetUpImage(context.Context, *v1.Pod, string, string) error { return nil }
func (f *fakeVolumes) SubPath(types.UID, string, string, string, int, string) (string, error) {
	return "", nil
}

type fakeObjects struct{}

func (fakeObjects) Register(*v1.Pod)                                {}
func (fakeObjects) Unregister(types.UID)                            {}
func (fakeObjects) ConfigMap(string, string) (*v1.ConfigMap, error) { return &v1.ConfigMap{}, nil }
func (fakeObjects) Secret(string, string) (*v1.Secret, error)       { return &v1.Secret{}, nil }

type fakeImages struct{ err error }

func (f *fakeImages) Ensure(context.Context, *v1.Pod, *v1.Container, []*v1.Secret, *runtimeapi.PodSandboxConfig) (image.Image, error) {
	return image.Image{Ref: "sha256:1"}, f.err
}
func (f *fakeImages) Forget(string) {}

type fakeProbes struct {
	mu                  sync.Mutex
	liveness, readiness map[string]plan.Result
}

func (f *fakeProbes) Sync(*v1.Pod, *podstate.Pod, string, probe.Before) {}
func (f *fakeProbes) Forget(types.UID)                                  {}
func (f *fakeProbes) Startup(string) plan.Result                        { return plan.None }
func (f *fakeProbes) Liveness(id string) plan.Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.liveness[id]
}
func (f *fakeProbes) Readiness(id string) plan.Result { return plan.None }

// fakeHooks take their time and succeed.
type fakeHooks struct{ takes time.Duration }

func (f *fakeHooks) Run(ctx context.Context, _ *v1.Pod, _ *v1.Container, _, _ string, _ *v1.LifecycleHandler) (string, error) {
	timer := time.NewTimer(f.takes)
	defer timer.Stop()
	select {
	case <-timer.C:
		return "", nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

type fakeStatus struct {
	mu       sync.Mutex
	last     *v1.PodStatus
	finished bool
	// contradicted is what the next look at the API finds.
	contradicted bool
	sets         int
}

func (f *fakeStatus) Observed(*v1.Pod) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.contradicted
}

func (f *fakeStatus) Set(_ *v1.Pod, s *v1.PodStatus) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = s
	f.sets++
}
func (f *fakeStatus) Finish(_ *v1.Pod, s *v1.PodStatus) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last, f.finished = s, true
}
func (f *fakeStatus) Forget(types.UID) {}
func (f *fakeStatus) get() (*v1.PodStatus, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last, f.finished
}

type fakeNode struct{}

func (fakeNode) HostIPs() []string                               { return []string{"192.0.2.7"} }
func (fakeNode) Allocatable() v1.ResourceList                    { return nil }
func (fakeNode) Services(context.Context) ([]*v1.Service, error) { return nil, nil }

// eventLog collects events as "Reason message".
type eventLog struct {
	mu    sync.Mutex
	lines []string
}

func (e *eventLog) Eventf(_ runtime.Object, _, reason, format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines = append(e.lines, reason+" "+fmt.Sprintf(format, args...))
}

func (e *eventLog) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.lines)
}

// world is a node with nothing real in it.
type world struct {
	t       *testing.T
	pool    *Pool
	runtime *fakeRuntime
	status  *fakeStatus
	events  *eventLog
	volumes *fakeVolumes
	images  *fakeImages
	probes  *fakeProbes
	hooks   *fakeHooks
	// refuseResize is why resizes do not fit.
	mu           sync.Mutex
	refuseResize string
}

func (w *world) resizeAnswer() (string, string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return "OutOfcpu", w.refuseResize, w.refuseResize == ""
}

// inWorld runs a test in virtual time.
func inWorld(t *testing.T, test func(w *world)) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := &world{
			t: t, runtime: newFakeRuntime(), status: &fakeStatus{}, events: &eventLog{}, volumes: &fakeVolumes{dir: dir}, images: &fakeImages{},
			probes: &fakeProbes{liveness: map[string]plan.Result{}}, hooks: &fakeHooks{},
		}
		allocations, err := allocation.Open(filepath.Join(dir, "allocations"), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		w.pool = NewPool(ctx, Config{
			AdmitResize: func(*v1.Pod, *v1.Pod, []*v1.Pod) (string, string, bool) { return w.resizeAnswer() },
			Runtime:     w.runtime, Cgroups: fakeCgroups{}, Volumes: w.volumes, Objects: fakeObjects{}, Images: w.images, Probes: w.probes, Hooks: w.hooks,
			Status: w.status, Node: fakeNode{}, Events: w.events, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: time.Now,
			Allocations: allocations, ContainerLogsDir: dir, HostsFile: "/etc/hosts",
			CRI: &criconfig.Node{
				Limits: &resources.Policy{MemoryCapacity: 1 << 30}, PodLogsDir: filepath.Join(dir, "logs"), Resolver: func() *hostfiles.Resolver {
					return &hostfiles.Resolver{ClusterDNS: []string{"10.96.0.10"}, ClusterDomain: "cluster.local"}
				},
				CgroupParent: func(types.UID, v1.PodQOSClass) string { return "/kubepods" },
			},
		})
		w.runtime.wake = w.pool.WakeAll
		test(w)
		cancel()
		w.pool.Wait()
	})
}

func newPod(change ...func(*v1.Pod)) *v1.Pod {
	grace := int64(30)
	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: "u1", Generation: 1},
		Spec: v1.PodSpec{
			RestartPolicy: v1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace,
			Containers: []v1.Container{{Name: "app", Image: "app:1"}},
		},
		Status: v1.PodStatus{Phase: v1.PodPending},
	}
	for _, c := range change {
		c(pod)
	}
	return pod
}

func (w *world) phase() v1.PodPhase {
	s, _ := w.status.get()
	if s == nil {
		return ""
	}
	return s.Phase
}

// delete asks for the end of a pod, as the API does.
func (w *world) delete(pod *v1.Pod, grace int64) {
	now := metav1.Now()
	gone := pod.DeepCopy()
	gone.DeletionTimestamp, gone.DeletionGracePeriodSeconds = &now, &grace
	w.pool.Update(gone)
}
