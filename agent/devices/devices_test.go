package devices_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/skiff-run/skiff/agent/devices"
	"github.com/skiff-run/skiff/agent/devices/deviceplugin"
	"github.com/skiff-run/skiff/internal/testenv"
)

const gpu = "example.com/gpu"

// node is a manager that runs.
type node struct {
	*testing.T
	*devices.Manager
	dir  string
	stop func()
}

func start(t *testing.T, dir string) *node {
	t.Helper()
	m, err := devices.New(devices.Config{
		Dir: filepath.Join(dir, "plugins"), File: filepath.Join(dir, "devices.json"), Logger: slog.New(slog.DiscardHandler),
		Changed: func() {}, Health: func(types.UID) {}, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	n := &node{T: t, Manager: m, dir: dir}
	n.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		n.stop = func() {}
	}
	t.Cleanup(func() { n.stop() })
	testenv.Eventually(t, 5*time.Second, func() bool { _, err := os.Stat(filepath.Join(dir, "plugins/kubelet.sock")); return err == nil }, "the manager listens")
	return n
}

func (n *node) plugin(ids ...string) *deviceplugin.Plugin {
	n.Helper()
	p, err := deviceplugin.Start(filepath.Join(n.dir, "plugins"), gpu, ids...)
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(p.Stop)
	if err := p.Register(context.Background()); err != nil {
		n.Fatal(err)
	}
	return p
}

func (n *node) has(capacity, allocatable int64) {
	n.Helper()
	testenv.Eventually(n, 5*time.Second, func() bool {
		all, working := n.Capacity()
		a, w := all[gpu], working[gpu]
		return a.Value() == capacity && w.Value() == allocatable
	}, "%d devices, %d of them work", capacity, allocatable)
}

func pod(name string, amounts ...string) *v1.Pod {
	p := &v1.Pod{}
	p.Name, p.UID = name, types.UID(name)
	for i, amount := range amounts {
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{
			Name: string(rune('a' + i)), Resources: v1.ResourceRequirements{Limits: v1.ResourceList{gpu: resource.MustParse(amount)}},
		})
	}
	return p
}

func (n *node) ids(p *v1.Pod, container string) []string {
	var ids []string
	for _, s := range n.Status(p.UID, container) {
		for _, r := range s.Resources {
			ids = append(ids, string(r.ResourceID))
		}
	}
	slices.Sort(ids)
	return ids
}

func TestAContainerGetsDevicesAndKeepsThem(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	n := start(t, t.TempDir())
	if err := n.Admit(ctx, pod("early", "1"), nil); err != nil {
		t.Errorf("a resource nobody has registered is somebody else's: %v", err)
	}
	p := n.plugin("gpu0", "gpu1", "gpu2")
	n.has(3, 3)
	web := pod("web", "1", "1")
	if err := n.Admit(ctx, web, nil); err != nil {
		t.Fatal(err)
	}
	// The plugin prefers the last.
	if a, b := n.ids(web, "a"), n.ids(web, "b"); !slices.Equal(a, []string{"gpu2"}) || !slices.Equal(b, []string{"gpu1"}) {
		t.Errorf("a has %v, b has %v", a, b)
	}
	config := &runtimeapi.ContainerConfig{Envs: []*runtimeapi.KeyValue{{Key: "OWN", Value: []byte("1")}}}
	if err := n.Inject(ctx, web, "a", config); err != nil {
		t.Fatal(err)
	}
	if len(config.Envs) != 2 || string(config.Envs[1].Value) != "[gpu2]" || config.Devices[0].ContainerPath != "/dev/test-gpu2" || config.Mounts[0].ContainerPath != "/driver" || config.Annotations["test.example/devices"] != "[gpu2]" {
		t.Errorf("configuration %+v", config)
	}
	if err := n.Inject(ctx, web, "a", &runtimeapi.ContainerConfig{}); err != nil {
		t.Fatal(err)
	}
	if got, want := p.Calls(), []string{"allocate [gpu2]", "prestart [gpu2]", "prestart [gpu2]"}; !slices.Equal(got, want) {
		t.Errorf("the plugin was asked %q, want %q", got, want)
	}
	const want = "requested number of devices unavailable for example.com/gpu. Requested: 2, Available: 1"
	if err := n.Admit(ctx, pod("greedy", "2"), []*v1.Pod{web}); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}

	n.stop()
	p.Stop()
	n = start(t, n.dir)
	n.has(0, 0)
	if err := n.Admit(ctx, web, nil); err != nil {
		t.Errorf("a pod that has its devices needs no plugin: %v", err)
	}
	config = &runtimeapi.ContainerConfig{}
	if err := n.Inject(ctx, web, "a", config); err != nil || len(config.Devices) != 1 {
		t.Errorf("what the plugin said is forgotten: %v, %v", config, err)
	}
	if err := n.Admit(ctx, pod("late", "1"), []*v1.Pod{web}); err == nil || err.Error() != "cannot allocate unregistered device example.com/gpu" {
		t.Errorf("error %v", err)
	}
	n.plugin("gpu0", "gpu1", "gpu2")
	n.has(3, 3)
	late := pod("late", "1")
	if err := n.Admit(ctx, late, []*v1.Pod{web}); err != nil || !slices.Equal(n.ids(late, "a"), []string{"gpu0"}) {
		t.Errorf("late has %v: %v", n.ids(late, "a"), err)
	}
	// Nobody's devices are free before all pods are known.
	if err := n.Admit(ctx, pod("next", "1"), nil); err == nil {
		t.Error("devices of unknown pods were given away")
	}
	n.Known()
	if err := n.Admit(ctx, pod("next", "3"), nil); err != nil {
		t.Errorf("devices of ended pods are kept: %v", err)
	}
}

func TestDevicesBreakAndPluginsDie(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	n := start(t, t.TempDir())
	p := n.plugin("gpu0", "gpu1")
	n.has(2, 2)
	web := pod("web", "1")
	if err := n.Admit(ctx, web, nil); err != nil {
		t.Fatal(err)
	}
	p.SetHealth("gpu1", pluginapi.Unhealthy)
	n.has(2, 1)
	if s := n.Status(web.UID, "a"); len(s) != 1 || s[0].Name != gpu || s[0].Resources[0] != (v1.ResourceHealth{ResourceID: "gpu1", Health: v1.ResourceHealthStatusUnhealthy}) {
		t.Errorf("status %+v", s)
	}
	p.Refuse(errors.New("no power"))
	if err := n.Inject(ctx, web, "a", &runtimeapi.ContainerConfig{}); err == nil || !strings.Contains(err.Error(), "no power") {
		t.Errorf("error %v", err)
	}
	p.Stop()
	n.has(2, 0)
	if err := n.Admit(ctx, pod("late", "1"), []*v1.Pod{web}); err == nil || err.Error() != "no healthy devices present; cannot allocate unhealthy devices example.com/gpu" {
		t.Errorf("error %v", err)
	}
}

func TestWrongRegistrationsAreRefused(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir())
	for want, request := range map[string]*pluginapi.RegisterRequest{
		`requested API version "v9" is not supported`: {Version: "v9", Endpoint: "a.sock", ResourceName: gpu},
		`the ResourceName "cpu" is invalid`:           {Version: pluginapi.Version, Endpoint: "a.sock", ResourceName: "cpu"},
		`the ResourceName "kubernetes.io/x"`:          {Version: pluginapi.Version, Endpoint: "a.sock", ResourceName: "kubernetes.io/x"},
		`the Endpoint "../a.sock" is no name`:         {Version: pluginapi.Version, Endpoint: "../a.sock", ResourceName: gpu},
	} {
		if err := deviceplugin.Register(context.Background(), filepath.Join(n.dir, "plugins"), request); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	n.has(0, 0)
}

func TestInitContainersLeaveTheirDevices(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir())
	n.plugin("gpu0", "gpu1")
	n.has(2, 2)
	p := pod("web", "2")
	p.Spec.InitContainers = []v1.Container{pod("", "1").Spec.Containers[0]}
	p.Spec.InitContainers[0].Name = "init"
	if err := n.Admit(context.Background(), p, nil); err != nil {
		t.Fatal(err)
	}
	if init, app := n.ids(p, "init"), n.ids(p, "a"); len(init) != 1 || !slices.Equal(app, []string{"gpu0", "gpu1"}) {
		t.Errorf("init has %v, the container %v", init, app)
	}
}
