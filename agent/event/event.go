// Package event names what the agent tells users: the reasons of its events,
// as the kubelet spells them, and how to point at one container of a pod.
package event

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Recorder writes events. client-go's record.EventRecorder is one.
type Recorder interface {
	Eventf(object runtime.Object, eventType, reason, messageFormat string, args ...any)
}

// Reasons of events.
const (
	Created             = "Created"
	Started             = "Started"
	Failed              = "Failed"
	Killing             = "Killing"
	BackOff             = "BackOff"
	Pulling             = "Pulling"
	Pulled              = "Pulled"
	InspectFailed       = "InspectFailed"
	ErrImageNeverPull   = "ErrImageNeverPull"
	FailedMount         = "FailedMount"
	FailedSandbox       = "FailedCreatePodSandBox"
	SandboxChanged      = "SandboxChanged"
	FailedKillPod       = "FailedKillPod"
	NetworkNotReady     = "NetworkNotReady"
	Unhealthy           = "Unhealthy"
	ProbeWarning        = "ProbeWarning"
	FailedPostStart     = "FailedPostStartHook"
	FailedPreStop       = "FailedPreStopHook"
	NodeReady           = "NodeReady"
	NodeNotReady        = "NodeNotReady"
	Starting            = "Starting"
	Rebooted            = "Rebooted"
	ImageGCFailed       = "ImageGCFailed"
	FreeDiskSpaceFailed = "FreeDiskSpaceFailed"
	PullSecretMissing   = "FailedToRetrieveImagePullSecret"
	ResizeStarted       = "ResizeStarted"
	ResizeCompleted     = "ResizeCompleted"
	ResizeDeferred      = "ResizeDeferred"
	ResizeInfeasible    = "ResizeInfeasible"
	ResizeError         = "ResizeError"
)

// Container refers to one container of a pod, as events about it do.
func Container(pod *v1.Pod, name string) *v1.ObjectReference {
	ref := Pod(pod)
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			ref.FieldPath = fmt.Sprintf("spec.containers{%s}", name)
		}
	}
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			ref.FieldPath = fmt.Sprintf("spec.initContainers{%s}", name)
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			ref.FieldPath = fmt.Sprintf("spec.ephemeralContainers{%s}", name)
		}
	}
	return ref
}

// Pod refers to a pod.
func Pod(pod *v1.Pod) *v1.ObjectReference {
	return &v1.ObjectReference{
		Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
	}
}
