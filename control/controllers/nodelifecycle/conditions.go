package nodelifecycle

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/control/controllers/podstate"
)

// reported are the conditions an agent keeps up to date.
var reported = [...]corev1.NodeConditionType{
	corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure,
}

// condition returns the node's condition of a type, or nil.
func condition(node *corev1.Node, conditionType corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == conditionType {
			return &node.Status.Conditions[i]
		}
	}
	return nil
}

// status returns a condition's status; empty when the node does not have it.
func status(node *corev1.Node, conditionType corev1.NodeConditionType) corev1.ConditionStatus {
	if found := condition(node, conditionType); found != nil {
		return found.Status
	}
	return ""
}

// needsUnknown tells whether the node still says something it can no longer know.
func needsUnknown(node *corev1.Node) bool {
	for _, conditionType := range reported {
		if status(node, conditionType) != corev1.ConditionUnknown {
			return true
		}
	}
	return false
}

// unknown sets what the node reports to Unknown.
func unknown(node *corev1.Node, now metav1.Time) {
	for _, conditionType := range reported {
		found := condition(node, conditionType)
		switch {
		case found == nil:
			node.Status.Conditions = append(node.Status.Conditions, corev1.NodeCondition{
				Type: conditionType, Status: corev1.ConditionUnknown,
				Reason: "NodeStatusNeverUpdated", Message: "Kubelet never posted node status.",
				LastHeartbeatTime: node.CreationTimestamp, LastTransitionTime: now,
			})
		case found.Status != corev1.ConditionUnknown:
			found.Status = corev1.ConditionUnknown
			found.Reason, found.Message = "NodeStatusUnknown", "Kubelet stopped posting node status."
			found.LastTransitionTime = now
		}
	}
}

// giveUp marks a node that was silent for too long, unless the API knows of a sign
// of life that the informer has not shown yet (KEP-5937).
func (c *Controller) giveUp(ctx context.Context, node *corev1.Node) (bool, error) {
	lease, err := c.client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(ctx, node.Name, metav1.GetOptions{})
	switch {
	case err == nil:
		if lease.Spec.RenewTime != nil && !lease.Spec.RenewTime.Time.Equal(c.signs.renewed(node.Name)) {
			c.signs.lease(lease, c.now())
			return false, nil
		}
	case !apierrors.IsNotFound(err):
		return false, fmt.Errorf("read lease of node %s: %w", node.Name, err)
	}
	lost := node.DeepCopy()
	unknown(lost, metav1.Time{Time: c.now()})
	if _, err := c.client.CoreV1().Nodes().UpdateStatus(ctx, lost, metav1.UpdateOptions{}); err != nil {
		return false, fmt.Errorf("update status of node %s: %w", node.Name, err)
	}
	c.logger.Warn("a node is no longer heard of", "node", node.Name, "grace", c.grace(node))
	if status(node, corev1.NodeReady) == corev1.ConditionTrue {
		c.events.Eventf(reference(node.Name, node.UID), corev1.EventTypeNormal, "NodeNotReady",
			"Node %s status is now: %s", node.Name, "NodeNotReady")
	}
	return true, nil
}

// unreadyPods marks the pods of a lost node as not ready, which takes them out of
// all endpoints.
func (c *Controller) unreadyPods(ctx context.Context, node *corev1.Node) error {
	pods, err := podstate.OnNode(c.pods, node.Name)
	if err != nil {
		return err
	}
	var failures []error
	for _, pod := range pods {
		if !podstate.Ready(pod) {
			continue
		}
		changed := pod.DeepCopy()
		ready := *podstate.Condition(pod, corev1.PodReady)
		ready.Status = corev1.ConditionFalse
		podstate.SetCondition(changed, ready, c.now())
		_, err := c.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, changed, metav1.UpdateOptions{})
		switch {
		case err == nil:
			c.events.Event(pod, corev1.EventTypeWarning, "NodeNotReady", "Node is not ready")
		case !apierrors.IsNotFound(err):
			failures = append(failures, fmt.Errorf("mark pod %s/%s not ready: %w", pod.Namespace, pod.Name, err))
		}
	}
	return errors.Join(failures...)
}

// concerns tells whether a change of a node is more than a heartbeat.
func concerns(old, node *corev1.Node) bool {
	if old.UID != node.UID || len(old.Status.Conditions) != len(node.Status.Conditions) ||
		old.Spec.Unschedulable != node.Spec.Unschedulable || !equality.Semantic.DeepEqual(old.Spec.Taints, node.Spec.Taints) ||
		!equality.Semantic.DeepEqual(old.Labels, node.Labels) {
		return true
	}
	for _, is := range node.Status.Conditions {
		if status(old, is.Type) != is.Status {
			return true
		}
	}
	return false
}
