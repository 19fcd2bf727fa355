package node

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/agent/resources"
)

// setMeta sets the labels every node has.
func (m *Manager) setMeta(node *v1.Node) {
	if node.Labels == nil {
		node.Labels = map[string]string{}
	}
	for key, value := range m.Annotations {
		metav1.SetMetaDataAnnotation(&node.ObjectMeta, key, value)
	}
	node.Labels[v1.LabelHostname] = m.Name
	node.Labels[v1.LabelOSStable] = runtime.GOOS
	node.Labels[v1.LabelArchStable] = runtime.GOARCH
	node.Labels["beta.kubernetes.io/os"] = runtime.GOOS
	node.Labels["beta.kubernetes.io/arch"] = runtime.GOARCH
}

func (m *Manager) setStatus(ctx context.Context, node *v1.Node, now time.Time) {
	s := &node.Status
	s.Addresses = []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: m.IP.String()}, {Type: v1.NodeHostName, Address: m.Name}}
	s.DaemonEndpoints.KubeletEndpoint.Port = m.Port
	m.setAmounts(s)
	s.NodeInfo = m.Facts.Info
	if m.VolumesInUse != nil {
		s.VolumesInUse = m.VolumesInUse()
	}
	s.DeclaredFeatures = declaredFeatures()
	status, err := m.askRuntime(ctx, s)
	if err == nil {
		s.RuntimeHandlers, s.Features = handlers(status), features(status)
	}
	s.Images = m.listImages(ctx, now)
	trouble := notReady(status.GetStatus(), err)
	m.lastLook.Store(now.UnixNano())
	m.wasReady = trouble == ""
	if m.tolerance.bears(trouble, node, m.Facts.Info.BootID, now) {
		trouble = ""
	}
	if why := m.ending.Load(); why != nil {
		trouble, m.wasReady = *why, true // nothing to wait for
	}
	m.trouble.Store(trouble)
	for _, c := range conditions(trouble, m.Pressure(), now) {
		setCondition(s, c)
	}
}

// What a runtime may take to answer. One that hangs must not keep the node from
// saying so.
const (
	statusLimit = 10 * time.Second
	imagesLimit = 30 * time.Second
)

// askRuntime returns the runtime's status and sets its version.
func (m *Manager) askRuntime(ctx context.Context, s *v1.NodeStatus) (*runtimeapi.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	status, err := m.Runtime.Status(ctx, false)
	if err != nil {
		return status, err
	}
	// The status may be what was known before it hung; the version has to be asked for.
	version, err := m.Runtime.Version(ctx, "")
	if err != nil {
		return status, err
	}
	s.NodeInfo.ContainerRuntimeVersion = fmt.Sprintf("%s://%s", version.GetRuntimeName(), version.GetRuntimeVersion())
	return status, nil
}

// setAmounts sets what the node has. What others say it has besides is theirs
// to change; all of that is for pods.
func (m *Manager) setAmounts(s *v1.NodeStatus) {
	capacity, allocatable := m.Facts.Amounts()
	resources.KeepExtended(capacity, s.Capacity)
	resources.KeepExtended(allocatable, s.Capacity)
	if m.Devices != nil {
		all, working := m.Devices()
		maps.Copy(capacity, all)
		maps.Copy(allocatable, working)
	}
	s.Capacity, s.Allocatable = capacity, allocatable
}

// listImages returns the largest images. Listing costs, so it is not done at
// every look.
func (m *Manager) listImages(ctx context.Context, now time.Time) []v1.ContainerImage {
	if now.Sub(m.imagesAt) < heartbeat && m.images != nil {
		return m.images
	}
	ctx, cancel := context.WithTimeout(ctx, imagesLimit)
	defer cancel()
	images, err := m.Runtime.ListImages(ctx, nil)
	if err != nil {
		return m.images
	}
	slices.SortFunc(images, func(a, b *runtimeapi.Image) int {
		return cmp.Or(cmp.Compare(b.GetSize(), a.GetSize()), cmp.Compare(a.GetId(), b.GetId()))
	})
	m.images, m.imagesAt = []v1.ContainerImage{}, now
	if m.MaxImages >= 0 {
		images = images[:min(len(images), m.MaxImages)]
	}
	for _, i := range images {
		names := append(slices.Clone(i.GetRepoDigests()), i.GetRepoTags()...)
		if names = names[:min(len(names), maxImageNames)]; len(names) > 0 {
			m.images = append(m.images, v1.ContainerImage{Names: names, SizeBytes: int64(i.GetSize())})
		}
	}
	return m.images
}

func setCondition(s *v1.NodeStatus, c v1.NodeCondition) {
	for i := range s.Conditions {
		if s.Conditions[i].Type == c.Type {
			if s.Conditions[i].Status == c.Status {
				c.LastTransitionTime = s.Conditions[i].LastTransitionTime
			}
			s.Conditions[i] = c
			return
		}
	}
	s.Conditions = append(s.Conditions, c)
}

// unchanged compares without the times of the heartbeat.
func unchanged(a, b *v1.Node) bool {
	if !maps.Equal(a.Annotations, b.Annotations) {
		return false
	}
	strip := func(n *v1.Node) (map[string]string, v1.NodeStatus) {
		s := *n.Status.DeepCopy()
		for i := range s.Conditions {
			s.Conditions[i].LastHeartbeatTime, s.Conditions[i].LastTransitionTime = metav1.Time{}, metav1.Time{}
		}
		return n.Labels, s
	}
	labelsA, statusA := strip(a)
	labelsB, statusB := strip(b)
	return equality.Semantic.DeepEqual(labelsA, labelsB) && equality.Semantic.DeepEqual(statusA, statusB)
}

func (m *Manager) patch(ctx context.Context, from, to *v1.Node) (*v1.Node, error) {
	diff := func(a, b *v1.Node) ([]byte, error) {
		before, err := json.Marshal(a)
		if err != nil {
			return nil, fmt.Errorf("encode node: %w", err)
		}
		after, err := json.Marshal(b)
		if err != nil {
			return nil, fmt.Errorf("encode node: %w", err)
		}
		return strategicpatch.CreateTwoWayMergePatch(before, after, v1.Node{})
	}
	if !maps.Equal(from.Labels, to.Labels) || !maps.Equal(from.Annotations, to.Annotations) {
		patch, err := diff(
			&v1.Node{ObjectMeta: metav1.ObjectMeta{Labels: from.Labels, Annotations: from.Annotations}},
			&v1.Node{ObjectMeta: metav1.ObjectMeta{Labels: to.Labels, Annotations: to.Annotations}})
		if err != nil {
			return nil, err
		}
		if _, err := m.Client.CoreV1().Nodes().Patch(ctx, m.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return nil, err
		}
	}
	patch, err := diff(&v1.Node{Status: from.Status}, &v1.Node{Status: to.Status})
	if err != nil {
		return nil, err
	}
	return m.Client.CoreV1().Nodes().Patch(ctx, m.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
}

func conditionOf(node *v1.Node, t v1.NodeConditionType) *v1.NodeCondition {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == t {
			return &node.Status.Conditions[i]
		}
	}
	return nil
}

func isReady(node *v1.Node) bool {
	c := conditionOf(node, v1.NodeReady)
	return c != nil && c.Status == v1.ConditionTrue
}
