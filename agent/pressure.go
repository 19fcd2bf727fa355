package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/skiff-run/skiff/agent/eviction"
	"github.com/skiff-run/skiff/agent/image"
	"github.com/skiff-run/skiff/agent/node"
	"github.com/skiff-run/skiff/agent/podworker"
	"github.com/skiff-run/skiff/agent/usage"
	"github.com/skiff-run/skiff/internal/config"
)

// evictor makes what looks for pressure on the machine and evicts pods.
func (a *Agent) evictor(pool *podworker.Pool, used *usage.Collector, images *image.Collector, events eviction.Recorder, ref k8sruntime.Object, changed func()) (*eviction.Manager, error) {
	limits, err := evictionLimits(&a.Settings.Resources)
	if err != nil {
		return nil, err
	}
	return eviction.NewManager(eviction.Config{
		Limits:  limits,
		Machine: &eviction.Machine{RootDir: a.Settings.RootDir, Images: a.Runtime, Pods: a.Host.PodsMemory},
		Pods:    pool, Events: events, Node: ref, Logger: a.Logger, Now: time.Now, Changed: changed, Every: a.EvictionEvery,
		Usage: func(ctx context.Context) map[string]*stats.PodStats {
			pods := used.Summary(ctx, false).Pods
			byUID := make(map[string]*stats.PodStats, len(pods))
			for i := range pods {
				byUID[pods[i].PodRef.UID] = &pods[i]
			}
			return byUID
		},
		FreeDisk: func(ctx context.Context) error { return errors.Join(pool.RemoveEnded(ctx), images.RemoveUnused(ctx)) },
	}), nil
}

// evictionLimits are the limits that the settings ask for.
func evictionLimits(s *config.Resources) (eviction.Limits, error) {
	thresholds, errs := s.Thresholds()
	return eviction.Limits{
		Thresholds: thresholds, EnforcePods: slices.Contains(s.EnforceNodeAllocatable, "pods"),
		Transition: s.PressureTransition(), MaxGrace: int64(s.EvictionMaxPodGracePeriod),
	}, errs.ToAggregate()
}

// pressures are the node's conditions in the words of the node's status.
func pressures(m *eviction.Manager) node.Pressure {
	conditions := m.Conditions()
	return node.Pressure{
		Memory: slices.Contains(conditions, v1.NodeMemoryPressure), Disk: slices.Contains(conditions, v1.NodeDiskPressure), PID: slices.Contains(conditions, v1.NodePIDPressure),
	}
}
