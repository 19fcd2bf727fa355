package node

import (
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Pressure is what the machine runs short of.
type Pressure struct{ Memory, Disk, PID bool }

// conditions of the node from what keeps it from running pods, if anything, and
// what the kernel says.
func conditions(trouble string, p Pressure, now time.Time) []v1.NodeCondition {
	choose := func(t v1.NodeConditionType, pressed bool, badReason, badMessage, goodReason, goodMessage string) v1.NodeCondition {
		c := v1.NodeCondition{Type: t, Status: v1.ConditionFalse, Reason: goodReason, Message: goodMessage}
		if pressed {
			c.Status, c.Reason, c.Message = v1.ConditionTrue, badReason, badMessage
		}
		return c
	}
	ready := v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"}
	if trouble != "" {
		ready.Status, ready.Reason, ready.Message = v1.ConditionFalse, "KubeletNotReady", trouble
	}
	all := []v1.NodeCondition{
		choose(v1.NodeMemoryPressure, p.Memory, "KubeletHasInsufficientMemory", "kubelet has insufficient memory available", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
		choose(v1.NodeDiskPressure, p.Disk, "KubeletHasDiskPressure", "kubelet has disk pressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
		choose(v1.NodePIDPressure, p.PID, "KubeletHasInsufficientPID", "kubelet has insufficient PID available", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
		ready,
	}
	for i := range all {
		all[i].LastHeartbeatTime, all[i].LastTransitionTime = metav1.NewTime(now), metav1.NewTime(now)
	}
	return all
}

// notReady says why the node cannot run pods, or nothing.
func notReady(status *runtimeapi.RuntimeStatus, err error) string {
	if err != nil {
		return fmt.Sprintf("container runtime is down: %v", err)
	}
	for _, c := range status.GetConditions() {
		if c.GetStatus() {
			continue
		}
		detail := fmt.Sprintf("%s=%t reason:%s message:%s", c.GetType(), c.GetStatus(), c.GetReason(), c.GetMessage())
		switch c.GetType() {
		case "NetworkReady":
			return "container runtime network not ready: " + detail
		case "RuntimeReady":
			return "container runtime not ready: " + detail
		}
	}
	return ""
}
