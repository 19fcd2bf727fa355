package nodelifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/node/topology"
)

// conditionTaints has the taint that follows from a condition's status.
var conditionTaints = map[corev1.NodeConditionType]map[corev1.ConditionStatus]string{
	corev1.NodeReady: {
		corev1.ConditionFalse: corev1.TaintNodeNotReady, corev1.ConditionUnknown: corev1.TaintNodeUnreachable,
	},
	corev1.NodeMemoryPressure:     {corev1.ConditionTrue: corev1.TaintNodeMemoryPressure},
	corev1.NodeDiskPressure:       {corev1.ConditionTrue: corev1.TaintNodeDiskPressure},
	corev1.NodePIDPressure:        {corev1.ConditionTrue: corev1.TaintNodePIDPressure},
	corev1.NodeNetworkUnavailable: {corev1.ConditionTrue: corev1.TaintNodeNetworkUnavailable},
}

// ours tells whether a taint is this controller's to add and to remove.
func ours(taint corev1.Taint) bool {
	lost := taint.Key == corev1.TaintNodeNotReady || taint.Key == corev1.TaintNodeUnreachable
	switch taint.Effect {
	case corev1.TaintEffectNoExecute:
		return lost
	case corev1.TaintEffectNoSchedule:
		return lost || slices.Contains([]string{
			corev1.TaintNodeUnschedulable, corev1.TaintNodeMemoryPressure, corev1.TaintNodeDiskPressure,
			corev1.TaintNodePIDPressure, corev1.TaintNodeNetworkUnavailable,
		}, taint.Key)
	}
	return false
}

// wantedTaints returns the taints the node should have. Those of others stay, and
// those that are there already keep their time. drive says whether pods may be
// driven off a node that is not ready; a node that already drives them off goes on
// unless keep is false.
func wantedTaints(node *corev1.Node, drive, keep bool, now metav1.Time) []corev1.Taint {
	var wanted []corev1.Taint
	for _, is := range node.Status.Conditions {
		if key, bad := conditionTaints[is.Type][is.Status]; bad {
			wanted = append(wanted, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
		}
	}
	if node.Spec.Unschedulable {
		wanted = append(wanted, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	driving := drivingTaint(node)
	if key, lost := conditionTaints[corev1.NodeReady][status(node, corev1.NodeReady)]; lost && (drive || (driving != nil && keep)) {
		taint := corev1.Taint{Key: key, Effect: corev1.TaintEffectNoExecute}
		if driving != nil {
			// From not ready to unreachable or back: the pods' time goes on.
			taint.TimeAdded = driving.TimeAdded
		}
		wanted = append(wanted, taint)
	}
	var result []corev1.Taint
	for _, taint := range node.Spec.Taints {
		i := slices.IndexFunc(wanted, func(w corev1.Taint) bool { return w.MatchTaint(&taint) })
		switch {
		case !ours(taint):
			result = append(result, taint)
		case i >= 0:
			result = append(result, taint)
			wanted = slices.Delete(wanted, i, i+1)
		}
	}
	for _, taint := range wanted {
		if taint.TimeAdded == nil {
			taint.TimeAdded = &now
		}
		result = append(result, taint)
	}
	return result
}

// drivingTaint returns the taint by which the node drives its pods off, or nil.
func drivingTaint(node *corev1.Node) *corev1.Taint {
	for i := range node.Spec.Taints {
		if taint := &node.Spec.Taints[i]; taint.Effect == corev1.TaintEffectNoExecute && ours(*taint) {
			return taint
		}
	}
	return nil
}

// betaLabels has the old names of labels, which are kept equal to the new ones.
var betaLabels = map[string]string{
	corev1.LabelOSStable: "beta.kubernetes.io/os", corev1.LabelArchStable: "beta.kubernetes.io/arch",
}

// keepTaints gives the node the taints it should have, and the labels.
func (c *Controller) keepTaints(ctx context.Context, node *corev1.Node, now time.Time) error {
	ready := status(node, corev1.NodeReady)
	lost := ready == corev1.ConditionFalse || ready == corev1.ConditionUnknown
	if lost || c.allLost {
		c.watchDisruption(now)
	}
	drive := false
	if lost && drivingTaint(node) == nil {
		wait := c.mayDrive(node, now)
		if drive = wait == 0; !drive && wait > 0 {
			c.queue.AddAfter(node.Name, wait)
		}
	}
	taints := wantedTaints(node, drive, !c.allLost, metav1.Time{Time: now.Truncate(time.Second)})
	labels := map[string]string{}
	for stable, beta := range betaLabels {
		if value, has := node.Labels[stable]; has && node.Labels[beta] != value {
			labels[beta] = value
		}
	}
	patch := map[string]any{}
	meta := map[string]any{"uid": node.UID}
	if len(labels) > 0 {
		meta["labels"] = labels
		patch["metadata"] = meta
	}
	if !equality.Semantic.DeepEqual(taints, node.Spec.Taints) {
		// The list is replaced as a whole, so it must be the one it was read from.
		meta["resourceVersion"] = node.ResourceVersion
		patch["metadata"] = meta
		patch["spec"] = map[string]any{"taints": taints}
	}
	if len(patch) == 0 {
		return nil
	}
	data, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encode taints: %w", err)
	}
	if _, err := c.client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, data, metav1.PatchOptions{}); err != nil {
		if drive {
			// The turn that this node had was not used.
			delete(c.limits, topology.GetZoneKey(node))
		}
		return fmt.Errorf("patch node %s: %w", node.Name, err)
	}
	return nil
}
