package runtime_test

import (
	"slices"

	"github.com/skiff-run/skiff/runtime"
)

// usage is what the pod of a container uses, with that container alone.
func (h *harness) usage(containerID string) runtime.PodUsage {
	h.Helper()
	for _, pod := range h.rt.Usage(h.ctx(), true) {
		i := slices.IndexFunc(pod.Containers, func(c runtime.ContainerUsage) bool { return c.ID == containerID })
		if i >= 0 {
			pod.Containers = pod.Containers[i : i+1]
			return pod
		}
	}
	h.Fatalf("no usage of container %s", containerID)
	return runtime.PodUsage{}
}
