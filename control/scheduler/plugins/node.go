package plugins

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	schedulingcorev1 "k8s.io/component-helpers/scheduling/corev1"

	"github.com/skiff-run/skiff/control/scheduler/framework"
)

// nodeUnschedulable keeps pods from cordoned nodes unless they tolerate the
// taint that stands for it.
type nodeUnschedulable struct{}

func (nodeUnschedulable) Name() string { return "NodeUnschedulable" }
func (nodeUnschedulable) Events() framework.Event {
	return framework.NodeAdded | framework.NodeTaintsChanged
}

func (nodeUnschedulable) Prepare(pod *framework.PodInfo, _ *framework.Snapshot) framework.Check {
	tolerated := schedulingcorev1.TolerationsTolerateTaint(klog.Background(), pod.Pod.Spec.Tolerations,
		&corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}, true)
	if tolerated {
		return nil
	}
	return func(node *framework.NodeInfo) *framework.Rejection {
		if node.Node.Spec.Unschedulable {
			return rejectForGood("node(s) were unschedulable")
		}
		return nil
	}
}

// nodeName honours a pod that names its node but was left to the scheduler.
type nodeName struct{}

func (nodeName) Name() string            { return "NodeName" }
func (nodeName) Events() framework.Event { return framework.NodeAdded }

func (nodeName) Prepare(pod *framework.PodInfo, _ *framework.Snapshot) framework.Check {
	name := pod.Pod.Spec.NodeName
	if name == "" {
		return nil
	}
	return func(node *framework.NodeInfo) *framework.Rejection {
		if node.Node.Name != name {
			return rejectForGood("node(s) didn't match the requested node name")
		}
		return nil
	}
}

// nodePorts keeps two pods from one host port.
type nodePorts struct{}

func (nodePorts) Name() string { return "NodePorts" }
func (nodePorts) Events() framework.Event {
	return framework.NodeAdded | framework.AssignedPodRemoved
}

func (nodePorts) Prepare(pod *framework.PodInfo, _ *framework.Snapshot) framework.Check {
	if len(pod.HostPorts) == 0 {
		return nil
	}
	return func(node *framework.NodeInfo) *framework.Rejection {
		for _, other := range node.Pods {
			for _, taken := range other.HostPorts {
				for _, wanted := range pod.HostPorts {
					if wanted.Conflicts(taken) {
						return reject("node(s) didn't have free ports for the requested pod ports")
					}
				}
			}
		}
		return nil
	}
}

// nodeAffinity honours nodeSelector and node affinity, required and preferred.
type nodeAffinity struct{}

func (nodeAffinity) Name() string  { return "NodeAffinity" }
func (nodeAffinity) Weight() int64 { return 2 }
func (nodeAffinity) Events() framework.Event {
	return framework.NodeAdded | framework.NodeLabelsChanged
}

func (nodeAffinity) Prepare(pod *framework.PodInfo, _ *framework.Snapshot) framework.Check {
	affinity := pod.Pod.Spec.Affinity
	if len(pod.Pod.Spec.NodeSelector) == 0 && (affinity == nil || affinity.NodeAffinity == nil ||
		affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil) {
		return nil
	}
	required := nodeaffinity.GetRequiredNodeAffinity(pod.Pod)
	return func(node *framework.NodeInfo) *framework.Rejection {
		// A term that cannot be parsed matches nothing.
		if matches, err := required.Match(node.Node); err != nil || !matches {
			return rejectForGood("node(s) didn't match Pod's node affinity/selector")
		}
		return nil
	}
}

func (nodeAffinity) Score(pod *framework.PodInfo, _ *framework.Snapshot, nodes []*framework.NodeInfo) []int64 {
	affinity := pod.Pod.Spec.Affinity
	if affinity == nil || affinity.NodeAffinity == nil || len(affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) == 0 {
		return nil
	}
	preferred, err := nodeaffinity.NewPreferredSchedulingTerms(affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	if err != nil {
		return nil
	}
	scores := make([]int64, len(nodes))
	for i, node := range nodes {
		scores[i] = preferred.Score(node.Node)
	}
	return framework.Normalize(scores, false)
}

// taintToleration keeps pods from tainted nodes, and prefers nodes without
// PreferNoSchedule taints the pod does not tolerate.
type taintToleration struct{}

func (taintToleration) Name() string  { return "TaintToleration" }
func (taintToleration) Weight() int64 { return 3 }
func (taintToleration) Events() framework.Event {
	return framework.NodeAdded | framework.NodeTaintsChanged
}

func (taintToleration) Prepare(pod *framework.PodInfo, _ *framework.Snapshot) framework.Check {
	tolerations := pod.Pod.Spec.Tolerations
	return func(node *framework.NodeInfo) *framework.Rejection {
		if len(node.Node.Spec.Taints) == 0 {
			return nil
		}
		_, untolerated := schedulingcorev1.FindMatchingUntoleratedTaint(klog.Background(), node.Node.Spec.Taints, tolerations,
			func(taint *corev1.Taint) bool {
				return taint.Effect == corev1.TaintEffectNoSchedule || taint.Effect == corev1.TaintEffectNoExecute
			}, true)
		if untolerated {
			return rejectForGood("node(s) had untolerated taint(s)")
		}
		return nil
	}
}

func (taintToleration) Score(pod *framework.PodInfo, _ *framework.Snapshot, nodes []*framework.NodeInfo) []int64 {
	scores, any := make([]int64, len(nodes)), false
	for i, node := range nodes {
		for j := range node.Node.Spec.Taints {
			taint := &node.Node.Spec.Taints[j]
			if taint.Effect == corev1.TaintEffectPreferNoSchedule &&
				!schedulingcorev1.TolerationsTolerateTaint(klog.Background(), pod.Pod.Spec.Tolerations, taint, true) {
				scores[i]++
				any = true
			}
		}
	}
	if !any {
		return nil
	}
	return framework.Normalize(scores, true)
}
