package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/runtime/namespace"
)

// PodSandboxStatus returns the sandbox and the statuses of its containers.
func (r *Runtime) PodSandboxStatus(_ context.Context, podSandboxID string, verbose bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	s, err := r.sandbox(podSandboxID)
	if err != nil {
		return nil, err
	}
	status := &runtimeapi.PodSandboxStatus{
		Id: s.id, Metadata: s.config.GetMetadata(), State: s.state(), CreatedAt: s.createdAt.UnixNano(),
		Labels: s.config.GetLabels(), Annotations: s.config.GetAnnotations(), RuntimeHandler: s.handler,
		Linux:   &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: s.namespaces()}},
		Network: &runtimeapi.PodSandboxNetworkStatus{},
	}
	for i, addr := range s.addresses {
		if i == 0 {
			status.Network.Ip = addr.String()
		} else {
			status.Network.AdditionalIps = append(status.Network.AdditionalIps, &runtimeapi.PodIP{Ip: addr.String()})
		}
	}
	response := &runtimeapi.PodSandboxStatusResponse{Status: status, Timestamp: time.Now().UnixNano()}
	for _, c := range r.containersOf(s.id) {
		response.ContainersStatuses = append(response.ContainersStatuses, c.status())
	}
	if verbose {
		info, err := json.Marshal(map[string]any{"netns": r.pin(s, namespace.Net), "runDir": r.sandboxRun(s.id)})
		if err != nil {
			return nil, fmt.Errorf("status of pod sandbox %s: %w", s.id, err)
		}
		response.Info = map[string]string{"info": string(info)}
	}
	return response, nil
}

// ListPodSandbox lists the sandboxes that match the filter, newest first.
func (r *Runtime) ListPodSandbox(_ context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	var list []*runtimeapi.PodSandbox
	for _, s := range r.allSandboxes() {
		state := s.state()
		if !strings.HasPrefix(s.id, filter.GetId()) || filter.GetState() != nil && filter.GetState().GetState() != state ||
			!selected(filter.GetLabelSelector(), s.config.GetLabels()) {
			continue
		}
		list = append(list, &runtimeapi.PodSandbox{
			Id: s.id, Metadata: s.config.GetMetadata(), State: state, CreatedAt: s.createdAt.UnixNano(),
			Labels: s.config.GetLabels(), Annotations: s.config.GetAnnotations(), RuntimeHandler: s.handler,
		})
	}
	slices.SortFunc(list, func(a, b *runtimeapi.PodSandbox) int { return int(b.CreatedAt - a.CreatedAt) })
	return list, nil
}

func (r *Runtime) allSandboxes() []*sandbox {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]*sandbox, 0, len(r.sandboxes))
	for _, s := range r.sandboxes {
		list = append(list, s)
	}
	return list
}

func selected(selector, labels map[string]string) bool {
	for key, value := range selector {
		if have, ok := labels[key]; !ok || have != value {
			return false
		}
	}
	return true
}
