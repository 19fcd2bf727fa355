package podstatus

import (
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/agent/plan"
	"github.com/skiff-run/skiff/agent/podstate"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

type probes map[string]plan.Result

func (p probes) Startup(id string) plan.Result   { return p["start:"+id] }
func (p probes) Readiness(id string) plan.Result { return p["ready:"+id] }

func newPod(policy v1.RestartPolicy) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u", Generation: 3},
		Spec:       v1.PodSpec{RestartPolicy: policy, Containers: []v1.Container{{Name: "a", Image: "i"}}},
		Status:     v1.PodStatus{Phase: v1.PodPending},
	}
}

func running(name string) podstate.Container {
	return podstate.Container{ID: name + "1", Name: name, SandboxID: "s", State: podstate.Running, StartedAt: now}
}

func ended(name string, code int32) podstate.Container {
	return podstate.Container{ID: name + "1", Name: name, SandboxID: "s", State: podstate.Exited, ExitCode: code, Reason: "Error", StartedAt: now, FinishedAt: now}
}

func in(containers ...podstate.Container) *podstate.Pod {
	return &podstate.Pod{Sandboxes: []podstate.Sandbox{{ID: "s", Ready: true, IPs: []string{"10.0.0.9"}}}, Containers: containers}
}

func TestPhase(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		policy   v1.RestartPolicy
		state    *podstate.Pod
		terminal bool
		want     v1.PodPhase
	}{
		"nothing made yet is Pending":                {v1.RestartPolicyAlways, &podstate.Pod{}, false, v1.PodPending},
		"a running container is Running":             {v1.RestartPolicyAlways, in(running("a")), false, v1.PodRunning},
		"a container about to restart is Running":    {v1.RestartPolicyAlways, in(ended("a", 1)), false, v1.PodRunning},
		"success without restart is Succeeded":       {v1.RestartPolicyNever, in(ended("a", 0)), false, v1.PodSucceeded},
		"failure without restart is Failed":          {v1.RestartPolicyNever, in(ended("a", 2)), false, v1.PodFailed},
		"a job's failure is tried again":             {v1.RestartPolicyOnFailure, in(ended("a", 2)), false, v1.PodRunning},
		"a stopped pod failed when a container did":  {v1.RestartPolicyAlways, in(ended("a", 143)), true, v1.PodFailed},
		"a stopped pod succeeded when its parts did": {v1.RestartPolicyAlways, in(ended("a", 0)), true, v1.PodSucceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Generate(Input{Pod: newPod(test.policy), State: test.state, Probes: probes{}, Terminal: test.terminal, Now: now})
			if s.Phase != test.want {
				t.Errorf("phase %s, want %s", s.Phase, test.want)
			}
		})
	}
}

func TestConditionsOfARunningPod(t *testing.T) {
	t.Parallel()
	pod := newPod(v1.RestartPolicyAlways)
	pod.Spec.Containers[0].ReadinessProbe = &v1.Probe{}
	pod.Status.Conditions = []v1.PodCondition{{Type: "example.com/gate", Status: v1.ConditionTrue}}
	s := Generate(Input{Pod: pod, State: in(running("a")), Probes: probes{"ready:a1": plan.Failure}, HostIPs: []string{"192.0.2.1"}, Now: now})
	want := map[v1.PodConditionType]string{
		"example.com/gate": "True", v1.PodReadyToStartContainers: "True", v1.PodInitialized: "True", v1.PodScheduled: "True",
		v1.PodReady:        "False ContainersNotReady containers with unready status: [a]",
		v1.ContainersReady: "False ContainersNotReady containers with unready status: [a]",
	}
	if len(s.Conditions) != len(want) {
		t.Errorf("conditions %+v", s.Conditions)
	}
	for _, c := range s.Conditions {
		if got := strings.TrimSpace(string(c.Status) + " " + c.Reason + " " + c.Message); got != want[c.Type] {
			t.Errorf("%s: %q, want %q", c.Type, got, want[c.Type])
		}
		if c.Type != "example.com/gate" && c.ObservedGeneration != 3 {
			t.Errorf("%s: observed generation %d", c.Type, c.ObservedGeneration)
		}
	}
	if s.PodIP != "10.0.0.9" || s.HostIP != "192.0.2.1" || s.ObservedGeneration != 3 {
		t.Errorf("status %+v", s)
	}
	later := Generate(Input{Pod: pod, Old: s, State: in(running("a")), Probes: probes{"ready:a1": plan.Success}, HostIPs: []string{"192.0.2.1"}, Now: now.Add(time.Hour)})
	for _, c := range later.Conditions {
		if moved := c.LastTransitionTime.After(now); moved != (c.Type == v1.PodReady || c.Type == v1.ContainersReady) && c.Type != "example.com/gate" {
			t.Errorf("%s: transition time %s", c.Type, c.LastTransitionTime)
		}
	}
}

func TestARestartedAgentKeepsAPodReadyUntilItsProbeHasRun(t *testing.T) {
	t.Parallel()
	pod := newPod(v1.RestartPolicyAlways)
	pod.Spec.Containers[0].ReadinessProbe = &v1.Probe{}
	before := Generate(Input{Pod: pod, State: in(running("a")), Probes: probes{"ready:a1": plan.Success}, Now: now})
	after := Generate(Input{Pod: pod, Old: before, State: in(running("a")), Probes: probes{}, Now: now.Add(time.Minute)})
	if !Equal(before, after) {
		t.Errorf("from %+v to %+v", before, after)
	}
}

func TestReadinessGates(t *testing.T) {
	t.Parallel()
	pod := newPod(v1.RestartPolicyAlways)
	pod.Spec.ReadinessGates = []v1.PodReadinessGate{{ConditionType: "g"}}
	s := Generate(Input{Pod: pod, State: in(running("a")), Probes: probes{}, Now: now})
	c := condition(s.Conditions, v1.PodReady)
	if want := `corresponding condition of pod readiness gate "g" does not exist.`; c.Reason != "ReadinessGatesNotReady" || c.Message != want {
		t.Errorf("condition %+v", c)
	}
}

func TestWaitingContainersTellWhy(t *testing.T) {
	t.Parallel()
	wait := map[string]plan.Wait{"a": {Reason: "CrashLoopBackOff", Message: "back-off 10s"}}
	s := Generate(Input{Pod: newPod(v1.RestartPolicyAlways), State: in(ended("a", 1)), Waiting: wait, Probes: probes{}, Now: now})
	c := s.ContainerStatuses[0]
	if c.State.Waiting == nil || c.State.Waiting.Reason != "CrashLoopBackOff" || c.LastTerminationState.Terminated == nil || s.Phase != v1.PodRunning {
		t.Errorf("phase %s, container %+v", s.Phase, c)
	}
	s = Generate(Input{Pod: newPod(v1.RestartPolicyAlways), State: &podstate.Pod{}, Probes: probes{}, Now: now})
	if w := s.ContainerStatuses[0].State.Waiting; w == nil || w.Reason != "ContainerCreating" {
		t.Errorf("container %+v", s.ContainerStatuses[0])
	}
}

func TestATerminalPhaseWaitsForTheLastContainer(t *testing.T) {
	t.Parallel()
	pod := newPod(v1.RestartPolicyNever)
	pod.Status.Phase = v1.PodRunning
	verdict := &Verdict{Reason: "DeadlineExceeded", Message: "too long"}
	if s := Generate(Input{Pod: pod, State: in(running("a")), Probes: probes{}, Verdict: verdict, Now: now}); s.Phase != v1.PodRunning || s.Reason != "" {
		t.Errorf("phase %s, reason %s while a container runs", s.Phase, s.Reason)
	}
	if s := Generate(Input{Pod: pod, State: in(ended("a", 143)), Probes: probes{}, Verdict: verdict, Now: now}); s.Phase != v1.PodFailed || s.Reason != "DeadlineExceeded" {
		t.Errorf("phase %s, reason %s", s.Phase, s.Reason)
	}
}

func TestFinalizeMarksWhatWasLost(t *testing.T) {
	t.Parallel()
	pod := newPod(v1.RestartPolicyAlways)
	s := Generate(Input{Pod: pod, State: &podstate.Pod{}, Probes: probes{}, Now: now})
	f := Finalize(pod, s, now)
	if end := f.ContainerStatuses[0].State.Terminated; f.Phase != v1.PodFailed || end == nil || end.ExitCode != 137 || end.Reason != "ContainerStatusUnknown" {
		t.Errorf("status %+v", f)
	}
}

func TestSidecarsCountUntilTheyStarted(t *testing.T) {
	t.Parallel()
	always := v1.ContainerRestartPolicyAlways
	pod := newPod(v1.RestartPolicyAlways)
	pod.Spec.InitContainers = []v1.Container{{Name: "s", RestartPolicy: &always, StartupProbe: &v1.Probe{}}}
	s := Generate(Input{Pod: pod, State: in(running("s")), Probes: probes{}, Now: now})
	if s.Phase != v1.PodPending || s.ContainerStatuses[0].State.Waiting.Reason != "PodInitializing" {
		t.Errorf("phase %s, container %+v", s.Phase, s.ContainerStatuses[0])
	}
	if c := condition(s.Conditions, v1.PodInitialized); c.Message != "containers with incomplete status: [s]" {
		t.Errorf("condition %+v", c)
	}
}

func TestACreatedContainerWaitsAsBefore(t *testing.T) {
	t.Parallel()
	pod := newPod(v1.RestartPolicyAlways)
	reason := func() string {
		created := podstate.Container{ID: "a1", Name: "a", SandboxID: "s", State: podstate.Created}
		s := Generate(Input{Pod: pod, State: in(created), Probes: probes{}, Now: now})
		if w := s.ContainerStatuses[0].State.Waiting; w != nil {
			return w.Reason
		}
		return "does not wait"
	}
	if got := reason(); got != "ContainerCreating" {
		t.Errorf("without init containers: %q", got)
	}
	pod.Spec.InitContainers = []v1.Container{{Name: "i", Image: "i"}}
	if got := reason(); got != "PodInitializing" {
		t.Errorf("with init containers: %q", got)
	}
}

func TestAPodEndedForAReasonKeepsItThoughItsContainersEndWell(t *testing.T) {
	t.Parallel()
	verdict := &Verdict{Reason: "DeadlineExceeded", Message: "too long"}
	first := Generate(Input{Pod: newPod(v1.RestartPolicyAlways), State: in(ended("a", 0)), Probes: probes{}, Verdict: verdict, Terminal: true, Now: now})
	s := Generate(Input{Pod: newPod(v1.RestartPolicyAlways), Old: first, State: in(ended("a", 0)), Probes: probes{}, Terminal: true, Now: now})
	if s.Phase != v1.PodFailed || s.Reason != "DeadlineExceeded" || s.Message != "too long" {
		t.Errorf("phase %s, reason %q, message %q", s.Phase, s.Reason, s.Message)
	}
}
