package spec

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

func TestDevicesAreFoundByTheirCDINames(t *testing.T) {
	dir := t.TempDir()
	const file = `{"cdiVersion": "0.5.0", "kind": "example.com/gpu", "devices": [{"name": "g0", "containerEdits": {"env": ["GPU=g0"], "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/null"}]}}]}`
	if err := os.WriteFile(filepath.Join(dir, "gpu.json"), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := cdi.Configure(cdi.WithSpecDirs(dir)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cdi.Configure(cdi.WithSpecDirs(cdi.DefaultSpecDirs...)) })
	apply := func(name string) (*specs.Spec, error) {
		s := &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}}
		return s, withCDIDevices([]*runtimeapi.CDIDevice{{Name: name}})(context.Background(), nil, &containers.Container{}, s)
	}
	s, err := apply("example.com/gpu=g0")
	if err != nil || len(s.Linux.Devices) != 1 || s.Linux.Devices[0].Path != "/dev/gpu0" || len(s.Process.Env) != 1 || s.Process.Env[0] != "GPU=g0" {
		t.Errorf("%+v, %v", s.Linux.Devices, err)
	}
	if _, err := apply("example.com/gpu=g9"); err == nil || !strings.Contains(err.Error(), "example.com/gpu=g9") {
		t.Errorf("an unknown device: %v", err)
	}
}
