package node

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/nodedeclaredfeatures/features/extendwebsocketstokubelet"
	"k8s.io/component-helpers/nodedeclaredfeatures/features/inplacepodresize"
	"k8s.io/component-helpers/nodedeclaredfeatures/features/restartallcontainers"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// declaredFeatures are those of Kubernetes 1.37 that a cluster must know of a node
// before it gives it pods that need them.
func declaredFeatures() []string {
	return []string{
		extendwebsocketstokubelet.ExtendWebSocketsToKubeletFeatureGate, inplacepodresize.IPPRPodLevelResourcesFeatureGate, inplacepodresize.IPPRInitContainersFeatureGate,
		restartallcontainers.RestartAllContainersOnContainerExits,
	}
}

// handlers are the runtime handlers that runtime classes can name, by name.
func handlers(status *runtimeapi.StatusResponse) []v1.NodeRuntimeHandler {
	var list []v1.NodeRuntimeHandler
	for _, h := range status.GetRuntimeHandlers() {
		readOnly, users := h.GetFeatures().GetRecursiveReadOnlyMounts(), h.GetFeatures().GetUserNamespaces()
		list = append(list, v1.NodeRuntimeHandler{
			Name: h.GetName(), Features: &v1.NodeRuntimeHandlerFeatures{RecursiveReadOnlyMounts: &readOnly, UserNamespaces: &users},
		})
	}
	slices.SortFunc(list, func(a, b v1.NodeRuntimeHandler) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func features(status *runtimeapi.StatusResponse) *v1.NodeFeatures {
	groups := status.GetFeatures().GetSupplementalGroupsPolicy()
	return &v1.NodeFeatures{SupplementalGroupsPolicy: &groups}
}

// silence is how long the loop may be busy with one look before something is wrong.
const silence = 2 * time.Minute

// Healthy says whether the loop that looks at the machine goes round.
func (m *Manager) Healthy() error {
	last := m.lastLook.Load()
	if last == 0 {
		return nil // not begun yet
	}
	if passed := time.Since(time.Unix(0, last)); passed > silence {
		return fmt.Errorf("the node was not looked at for %s", passed.Truncate(time.Second))
	}
	return nil
}

// End makes the node NotReady with that message, for a machine that is about to
// stop; an empty one takes it back.
func (m *Manager) End(message string) {
	if message == "" {
		m.ending.Store(nil)
	} else {
		m.ending.Store(&message)
	}
	m.Wake()
}
