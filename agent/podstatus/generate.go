package podstatus

import (
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/agent/allocation"
	"github.com/skiff-run/skiff/agent/plan"
	"github.com/skiff-run/skiff/agent/podstate"
	"github.com/skiff-run/skiff/agent/resources"
)

// Probes answers what the probes found, by container id.
type Probes interface {
	Startup(containerID string) plan.Result
	Readiness(containerID string) plan.Result
}

// Verdict ends a pod for a reason outside its containers.
type Verdict struct {
	Reason, Message string
	// Disruption is the message of the condition DisruptionTarget, for pods that are not to blame.
	Disruption string
}

// Input is everything a status depends on.
type Input struct {
	Pod *v1.Pod
	// Old is the last status this agent generated, or the API's.
	Old   *v1.PodStatus
	State *podstate.Pod
	// Waiting says why containers are not started.
	Waiting map[string]plan.Wait
	Probes  Probes
	HostIPs []string
	// RecursiveReadOnly says whether this node can make mounts below a mount read-only with it.
	RecursiveReadOnly bool
	// Terminal: no container will be started again.
	Terminal bool
	// Actuated is what is in force of the pod's resources; nil: what the spec says.
	Actuated *allocation.Resources
	// Devices tells how the devices of a container are; it may be nil.
	Devices func(container string) []v1.ResourceStatus
	// Resize are the conditions about a resize.
	Resize []v1.PodCondition
	// Verdict makes the phase Failed, when set.
	Verdict *Verdict
	Now     time.Time
}

// Generate returns the pod's status.
func Generate(in Input) *v1.PodStatus {
	if in.Old == nil {
		in.Old = &in.Pod.Status
	}
	s := &v1.PodStatus{
		ObservedGeneration: in.Pod.Generation,
		QOSClass:           resources.QOSClass(in.Pod),
		StartTime:          in.Old.StartTime,
		NominatedNodeName:  in.Pod.Status.NominatedNodeName,
		// Not ours: kept as the API has them.
		ResourceClaimStatuses:       in.Pod.Status.ResourceClaimStatuses,
		ExtendedResourceClaimStatus: in.Pod.Status.ExtendedResourceClaimStatus,
	}
	if s.StartTime == nil {
		s.StartTime = in.Pod.Status.StartTime
	}
	if s.StartTime == nil {
		now := metav1.NewTime(in.Now).Rfc3339Copy()
		s.StartTime = &now
	}
	addresses(in, s)
	podResources(in, s)

	hasInit := len(in.Pod.Spec.InitContainers) > 0
	s.InitContainerStatuses = containerStatuses(in, in.Pod.Spec.InitContainers, in.Old.InitContainerStatuses, hasInit, true)
	s.ContainerStatuses = containerStatuses(in, in.Pod.Spec.Containers, in.Old.ContainerStatuses, hasInit, false)
	s.EphemeralContainerStatuses = containerStatuses(in, ephemeral(in.Pod), in.Old.EphemeralContainerStatuses, hasInit, false)
	readiness(in, s)

	s.Phase = phase(in.Pod, s, in.Terminal, plan.RegularStarted(in.Pod, in.State))
	// A terminal phase is final, here and in the API.
	for _, final := range []v1.PodPhase{in.Old.Phase, in.Pod.Status.Phase} {
		if over(final) {
			s.Phase = final
		}
	}
	if s.Phase == in.Old.Phase {
		s.Reason, s.Message = in.Old.Reason, in.Old.Message
	}
	if in.Verdict != nil && !over(in.Pod.Status.Phase) {
		s.Phase, s.Reason, s.Message = v1.PodFailed, in.Verdict.Reason, in.Verdict.Message
	}
	// A pod is not over while anything of it may run.
	if !over(in.Old.Phase) && over(s.Phase) && in.State.Active() {
		s.Phase, s.Reason, s.Message = in.Old.Phase, in.Old.Reason, in.Old.Message
		if s.Phase == "" {
			s.Phase = v1.PodPending
		}
	}
	conditions(in, s)
	normalize(in.Pod, s)
	return s
}

// Finalize returns the status of a pod whose containers are all gone for good:
// what has no end recorded is marked as lost, and the phase becomes terminal.
func Finalize(pod *v1.Pod, status *v1.PodStatus, now time.Time) *v1.PodStatus {
	s := status.DeepCopy()
	lost := v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
		Reason: unknownReason, Message: "The container could not be located when the pod was terminated", ExitCode: 137,
	}}
	if initialized(pod, s) {
		for i := range s.ContainerStatuses {
			if s.ContainerStatuses[i].State.Terminated == nil {
				s.ContainerStatuses[i].State = lost
				notReady(&s.ContainerStatuses[i])
			}
		}
	}
	for i := range evidencedInit(s.InitContainerStatuses) {
		if s.InitContainerStatuses[i].State.Terminated == nil {
			s.InitContainerStatuses[i].State = lost
			notReady(&s.InitContainerStatuses[i])
		}
	}
	if !over(s.Phase) {
		s.Phase = v1.PodFailed
	}
	// The condition that names a disruption is not regenerated; the others follow the phase.
	conditions(Input{Pod: pod, Old: status, State: &podstate.Pod{UID: pod.UID}, Now: now}, s)
	normalize(pod, s)
	return s
}

// Rejected is the status of a pod this node refuses.
func Rejected(pod *v1.Pod, reason, message string, now time.Time) *v1.PodStatus {
	s := pod.Status.DeepCopy()
	s.QOSClass = resources.QOSClass(pod)
	s.ObservedGeneration = pod.Generation
	s.Phase, s.Reason, s.Message = v1.PodFailed, reason, "Pod was rejected: "+message
	if s.StartTime == nil {
		start := metav1.NewTime(now).Rfc3339Copy()
		s.StartTime = &start
	}
	return s
}

// Equal reports whether two statuses say the same.
func Equal(a, b *v1.PodStatus) bool { return equality.Semantic.DeepEqual(a, b) }

func over(phase v1.PodPhase) bool { return phase == v1.PodSucceeded || phase == v1.PodFailed }

func notReady(s *v1.ContainerStatus) {
	no := false
	s.Ready, s.Started = false, &no
}

func ephemeral(pod *v1.Pod) []v1.Container {
	containers := make([]v1.Container, 0, len(pod.Spec.EphemeralContainers))
	for i := range pod.Spec.EphemeralContainers {
		containers = append(containers, v1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	return containers
}

// addresses fills in host and pod addresses; a pod keeps its address in the
// status after its sandbox is gone.
func addresses(in Input, s *v1.PodStatus) {
	for _, ip := range in.State.IPs() {
		s.PodIPs = append(s.PodIPs, v1.PodIP{IP: ip})
	}
	for _, ip := range in.HostIPs {
		s.HostIPs = append(s.HostIPs, v1.HostIP{IP: ip})
	}
	if in.Pod.Spec.HostNetwork {
		s.PodIPs = nil
		for _, ip := range in.HostIPs {
			s.PodIPs = append(s.PodIPs, v1.PodIP{IP: ip})
		}
	}
	if len(s.PodIPs) == 0 {
		s.PodIPs = in.Old.PodIPs
	}
	if len(s.HostIPs) == 0 {
		s.HostIPs = in.Old.HostIPs
	}
	if len(s.PodIPs) > 0 {
		s.PodIP = s.PodIPs[0].IP
	}
	if len(s.HostIPs) > 0 {
		s.HostIP = s.HostIPs[0].IP
	}
}
