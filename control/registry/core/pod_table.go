package core

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/skiff-run/skiff/control/registry"
)

const none = "<none>"

// unreachableReason is the status reason of pods on nodes that went silent.
const unreachableReason = "NodeLost"

func podColumns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		registry.NameColumn(),
		registry.Column("Ready", "string", "The aggregate readiness state of this pod for accepting traffic."),
		registry.Column("Status", "string", "The aggregate status of the containers in this pod."),
		registry.Column("Restarts", "string", "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted."),
		registry.AgeColumn(),
		registry.Wide(registry.Column("IP", "string", corev1.PodStatus{}.SwaggerDoc()["podIP"])),
		registry.Wide(registry.Column("Node", "string", corev1.PodSpec{}.SwaggerDoc()["nodeName"])),
		registry.Wide(registry.Column("Nominated Node", "string", corev1.PodStatus{}.SwaggerDoc()["nominatedNodeName"])),
		registry.Wide(registry.Column("Readiness Gates", "string", corev1.PodSpec{}.SwaggerDoc()["readinessGates"])),
	}
}

func podRow(p *corev1.Pod, now time.Time) []any {
	s := summarize(p)
	address := none
	if len(p.Status.PodIPs) > 0 {
		address = orNone(p.Status.PodIPs[0].IP)
	}
	return []any{
		p.Name, fmt.Sprintf("%d/%d", s.ready, s.total), s.reason, s.restarts.words(now), registry.Age(p.CreationTimestamp),
		address, orNone(p.Spec.NodeName), orNone(p.Status.NominatedNodeName), readinessGates(p),
	}
}

func orNone(text string) string {
	if text == "" {
		return none
	}
	return text
}

func readinessGates(p *corev1.Pod) string {
	if len(p.Spec.ReadinessGates) == 0 {
		return none
	}
	open := 0
	for _, gate := range p.Spec.ReadinessGates {
		if conditionIs(p, gate.ConditionType) {
			open++
		}
	}
	return fmt.Sprintf("%d/%d", open, len(p.Spec.ReadinessGates))
}

// conditionIs tells whether the first condition of the type is true.
func conditionIs(p *corev1.Pod, kind corev1.PodConditionType) bool {
	for _, condition := range p.Status.Conditions {
		if condition.Type == kind {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// podSummary is a pod in one line: what its containers, one after the other, say of it.
type podSummary struct {
	ready, total int
	reason       string
	restarts     restarts
}

// restarts counts how often containers were started again, and when last.
type restarts struct {
	count int
	last  metav1.Time
}

func (r *restarts) add(c *corev1.ContainerStatus) {
	r.count += int(c.RestartCount)
	if ended := c.LastTerminationState.Terminated; ended != nil && r.last.Before(&ended.FinishedAt) {
		r.last = ended.FinishedAt
	}
}

// words says it as kubectl prints it: 3 (5m ago).
func (r restarts) words(now time.Time) string {
	if r.count == 0 || r.last.IsZero() {
		return strconv.Itoa(r.count)
	}
	return fmt.Sprintf("%d (%s ago)", r.count, duration.HumanDuration(now.Sub(r.last.Time)))
}

func summarize(p *corev1.Pod) podSummary {
	s := podSummary{reason: string(p.Status.Phase), total: len(p.Spec.Containers)}
	if p.Status.Reason != "" {
		s.reason = p.Status.Reason
	}
	for _, condition := range p.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Reason == corev1.PodReasonSchedulingGated {
			s.reason = corev1.PodReasonSchedulingGated
		}
	}
	sidecars := map[string]bool{}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sidecars[c.Name] = true
			s.total++
		}
	}
	initializing, sidecarRestarts := s.initContainers(p, sidecars)
	if !initializing || conditionIs(p, corev1.PodInitialized) {
		// Restarts of init containers that ran to their end no longer matter.
		s.restarts = sidecarRestarts
		s.regularContainers(p)
	}
	switch ended := p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded; {
	case p.DeletionTimestamp == nil:
	case p.Status.Reason == unreachableReason:
		s.reason = "Unknown"
	case !ended:
		s.reason = "Terminating"
	}
	return s
}

// initContainers tells whether the pod still initializes, and then how far it is.
func (s *podSummary) initContainers(p *corev1.Pod, sidecars map[string]bool) (initializing bool, ofSidecars restarts) {
	for i := range p.Status.InitContainerStatuses {
		c := &p.Status.InitContainerStatuses[i]
		s.restarts.add(c)
		if sidecars[c.Name] {
			ofSidecars.add(c)
		}
		switch ended, waiting := c.State.Terminated, c.State.Waiting; {
		case ended != nil && ended.ExitCode == 0:
			continue
		case sidecars[c.Name] && c.Started != nil && *c.Started:
			if c.Ready {
				s.ready++
			}
			continue
		case ended != nil:
			s.reason = "Init:" + endReason(ended)
		case waiting != nil && waiting.Reason != "" && waiting.Reason != "PodInitializing":
			s.reason = "Init:" + waiting.Reason
		default:
			s.reason = fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
		}
		return true, ofSidecars
	}
	return false, ofSidecars
}

func endReason(ended *corev1.ContainerStateTerminated) string {
	switch {
	case ended.Reason != "":
		return ended.Reason
	case ended.Signal != 0:
		return fmt.Sprintf("Signal:%d", ended.Signal)
	default:
		return fmt.Sprintf("ExitCode:%d", ended.ExitCode)
	}
}

// regularContainers takes the word of the first container that has something to say.
func (s *podSummary) regularContainers(p *corev1.Pod) {
	running, failure := false, ""
	for i := len(p.Status.ContainerStatuses) - 1; i >= 0; i-- {
		c := &p.Status.ContainerStatuses[i]
		s.restarts.add(c)
		switch ended, waiting := c.State.Terminated, c.State.Waiting; {
		case waiting != nil && waiting.Reason != "":
			s.reason = waiting.Reason
		case ended != nil:
			s.reason = endReason(ended)
			if ended.ExitCode != 0 {
				failure = s.reason
			}
		case c.Ready && c.State.Running != nil:
			running = true
			s.ready++
		}
	}
	if s.reason != "Completed" {
		return
	}
	// Some containers ended well; the others decide what the pod is.
	switch {
	case running && anyCondition(p, corev1.PodReady):
		s.reason = "Running"
	case failure != "":
		s.reason = failure
	case running:
		s.reason = "NotReady"
	}
}

func anyCondition(p *corev1.Pod, kind corev1.PodConditionType) bool {
	for _, condition := range p.Status.Conditions {
		if condition.Type == kind && condition.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}
