package agent

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/cpuset"

	"github.com/skiff-run/skiff/agent/cpus"
	"github.com/skiff-run/skiff/agent/podworker"
)

// cpusetsEvery is how often containers are looked at whose processors may have changed.
const cpusetsEvery = 10 * time.Second

// cpusets keeps the containers that have no processors of their own on the shared ones.
type cpusets struct {
	agent *Agent
	cpus  *cpus.Manager
	wake  chan struct{}
	// applied is what each running container was told last, by id.
	applied map[string]string
}

// newCPUManager makes the manager of processors and what tells containers of its changes.
func (a *Agent) newCPUManager() (*cpus.Manager, *cpusets, error) {
	keeper := &cpusets{agent: a, wake: make(chan struct{}, 1), applied: map[string]string{}}
	topology, err := cpus.ReadTopology("/sys/devices/system/cpu")
	if err != nil {
		return nil, nil, err
	}
	s := &a.Settings.Resources
	reserved, err := cpuset.Parse(s.ReservedSystemCPUs)
	if err != nil {
		return nil, nil, err
	}
	if reserved.IsEmpty() {
		reserved = topology.First(a.reserved.CPUs())
	}
	keeper.cpus, err = cpus.New(cpus.Config{
		Static: s.CPUManagerPolicy == "static", Topology: topology, Reserved: reserved, File: filepath.Join(a.Settings.StateDir, "cpus.json"), Logger: a.Logger,
		Changed: func() {
			select {
			case keeper.wake <- struct{}{}:
			default:
			}
		},
	})
	return keeper.cpus, keeper, err
}

// run tells containers of changes until ctx ends. Without the static policy there are none.
func (k *cpusets) run(ctx context.Context, pool *podworker.Pool) {
	if !k.cpus.Static {
		return
	}
	ticker := time.NewTicker(cpusetsEvery)
	defer ticker.Stop()
	for {
		k.sync(ctx, pool.Pods())
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-k.wake:
		}
	}
}

func (k *cpusets) sync(ctx context.Context, pods []*v1.Pod) {
	var active []*v1.Pod
	running := map[string]string{}
	for _, pod := range pods {
		if pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed {
			continue
		}
		active = append(active, pod)
	}
	k.cpus.Prune(active)
	shared := k.cpus.Shared()
	for _, pod := range active {
		for _, statuses := range [][]v1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses} {
			for i := range statuses {
				if statuses[i].State.Running == nil {
					continue
				}
				want := k.cpus.Exclusive(pod, &v1.Container{Name: statuses[i].Name})
				if want == "" {
					want = shared
				}
				running[strings.TrimPrefix(statuses[i].ContainerID, "containerd://")] = want
			}
		}
	}
	for id := range k.applied {
		if _, still := running[id]; !still {
			delete(k.applied, id)
		}
	}
	for id, want := range running {
		if k.applied[id] == want {
			continue
		}
		err := k.agent.Runtime.UpdateContainerResources(ctx, id, &runtimeapi.ContainerResources{Linux: &runtimeapi.LinuxContainerResources{CpusetCpus: want}})
		if err != nil {
			if ctx.Err() == nil {
				k.agent.Logger.Debug("move a container to other processors; trying again", "container", id, "error", err)
			}
			continue
		}
		k.applied[id] = want
	}
}
