package usage

import (
	"context"
	"log/slog"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/runtime"
	"github.com/skiff-run/skiff/runtime/cgroup"
)

// sampleEvery is how often computing time is noted, for rates: cheap, because it
// is one small file for every container.
const sampleEvery = 15 * time.Second

// Runtime tells what containers use.
type Runtime interface {
	Usage(ctx context.Context, layers bool) []runtime.PodUsage
	SampleCPU(now time.Time)
	ImageFsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error)
}

// Cgroups tells what groups of pods and the whole machine use.
type Cgroups interface {
	Tiers() []string
	Path(name string) string
	Detail(name string) (cgroup.Detail, error)
	CPUTime(path string) (uint64, error)
}

// Pods are the pods of this node with their newest status.
type Pods interface{ Pods() []*v1.Pod }

// Volumes finds the folder of a pod's volume.
type Volumes interface {
	Path(pod *v1.Pod, name string) (string, bool)
}

// Config of a Collector.
type Config struct {
	NodeName string
	// RootDir is the folder of the pods' volumes, on the node's file system.
	RootDir string
	Runtime Runtime
	Cgroups Cgroups
	Pods    Pods
	Volumes Volumes
	Logger  *slog.Logger
	// VolumesAge is how old the sizes of volumes may be: measuring walks their files. 0: a minute.
	VolumesAge time.Duration
}

// Collector answers what is used. Its methods may be called from many goroutines.
type Collector struct {
	Config
	started time.Time
	node    cgroup.CPURate
	tiers   map[string]*cgroup.CPURate // by path; never changed
	self    cgroup.CPURate

	// mu guards volumes, what those of each pod took when they were measured last.
	mu      sync.Mutex
	volumes map[types.UID]*measuredVolumes
}

// New returns a collector; Run makes its rates good.
func New(c Config) *Collector {
	if c.VolumesAge == 0 {
		c.VolumesAge = volumesAge
	}
	collector := &Collector{Config: c, started: time.Now(), tiers: map[string]*cgroup.CPURate{}, volumes: map[types.UID]*measuredVolumes{}}
	for _, tier := range c.Cgroups.Tiers() {
		collector.tiers[c.Cgroups.Path(tier)] = &cgroup.CPURate{}
	}
	return collector
}

// Run notes computing time now and then until ctx ends.
func (c *Collector) Run(ctx context.Context) {
	ticker := time.NewTicker(sampleEvery)
	defer ticker.Stop()
	for {
		c.sample(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (c *Collector) sample(now time.Time) {
	c.Runtime.SampleCPU(now)
	if used, err := c.nodeCPU(); err == nil {
		c.node.Note(now, used)
	}
	for path, rate := range c.tiers {
		if used, err := c.Cgroups.CPUTime(path); err == nil {
			rate.Note(now, used)
		}
	}
	c.self.Note(now, selfCPU())
}
