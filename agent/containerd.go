package agent

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/runtime"
)

// Containerd fits the runtime to what the agent's rooms expect: errors are
// told apart by their gRPC code, as with any CRI runtime, and what takes time
// is measured, under the kubelet's names.
type Containerd struct {
	*runtime.Runtime
	total, failed *prometheus.CounterVec
	took          *prometheus.HistogramVec
}

// NewContainerd returns a Containerd on a runtime.
func NewContainerd(r *runtime.Runtime) *Containerd {
	labels := []string{"operation_type"}
	return &Containerd{
		Runtime: r,
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubelet_runtime_operations_total", Help: "Cumulative number of runtime operations by operation type.",
		}, labels),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubelet_runtime_operations_errors_total", Help: "Cumulative number of runtime operation errors by operation type.",
		}, labels),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kubelet_runtime_operations_duration_seconds", Help: "Duration in seconds of runtime operations. Broken down by operation type.",
			Buckets: prometheus.ExponentialBuckets(.005, 2.5, 14),
		}, labels),
	}
}

// Describe implements prometheus.Collector.
func (c *Containerd) Describe(out chan<- *prometheus.Desc) {
	c.total.Describe(out)
	c.failed.Describe(out)
	c.took.Describe(out)
}

// Collect implements prometheus.Collector.
func (c *Containerd) Collect(out chan<- prometheus.Metric) {
	c.total.Collect(out)
	c.failed.Collect(out)
	c.took.Collect(out)
}

// measure carries an operation out, and returns its error translated.
func (c *Containerd) measure(operation string, do func() error) error {
	began := time.Now()
	err := do()
	c.took.WithLabelValues(operation).Observe(time.Since(began).Seconds())
	c.total.WithLabelValues(operation).Inc()
	if err != nil {
		c.failed.WithLabelValues(operation).Inc()
	}
	return translate(err)
}

func translate(err error) error {
	switch {
	case errors.Is(err, runtime.ErrNotFound):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, runtime.ErrExecTimeout):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	return err
}

// The methods below differ from the runtime's in this only.

func (c *Containerd) PodSandboxStatus(ctx context.Context, id string, verbose bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	r, err := c.Runtime.PodSandboxStatus(ctx, id, verbose)
	return r, translate(err)
}

func (c *Containerd) ContainerStatus(ctx context.Context, id string, verbose bool) (*runtimeapi.ContainerStatusResponse, error) {
	r, err := c.Runtime.ContainerStatus(ctx, id, verbose)
	return r, translate(err)
}

func (c *Containerd) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (id string, err error) {
	err = c.measure("run_podsandbox", func() (err error) {
		id, err = c.Runtime.RunPodSandbox(ctx, config, handler)
		return err
	})
	return id, err
}

func (c *Containerd) StopPodSandbox(ctx context.Context, id string) error {
	return c.measure("stop_podsandbox", func() error { return c.Runtime.StopPodSandbox(ctx, id) })
}

func (c *Containerd) RemovePodSandbox(ctx context.Context, id string) error {
	return c.measure("remove_podsandbox", func() error { return c.Runtime.RemovePodSandbox(ctx, id) })
}

func (c *Containerd) CreateContainer(ctx context.Context, sandbox string, config *runtimeapi.ContainerConfig, sandboxConfig *runtimeapi.PodSandboxConfig) (id string, err error) {
	err = c.measure("create_container", func() (err error) {
		id, err = c.Runtime.CreateContainer(ctx, sandbox, config, sandboxConfig)
		return err
	})
	return id, err
}

func (c *Containerd) StartContainer(ctx context.Context, id string) error {
	return c.measure("start_container", func() error { return c.Runtime.StartContainer(ctx, id) })
}

func (c *Containerd) StopContainer(ctx context.Context, id string, timeout int64) error {
	return c.measure("stop_container", func() error { return c.Runtime.StopContainer(ctx, id, timeout) })
}

func (c *Containerd) RemoveContainer(ctx context.Context, id string) error {
	return c.measure("remove_container", func() error { return c.Runtime.RemoveContainer(ctx, id) })
}

func (c *Containerd) PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) (ref string, err error) {
	err = c.measure("pull_image", func() (err error) {
		ref, err = c.Runtime.PullImage(ctx, image, auth, sandbox)
		return err
	})
	return ref, err
}

func (c *Containerd) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (stdout, stderr []byte, err error) {
	err = c.measure("exec_sync", func() (err error) {
		stdout, stderr, err = c.Runtime.ExecSync(ctx, id, cmd, timeout)
		return err
	})
	return stdout, stderr, err
}
