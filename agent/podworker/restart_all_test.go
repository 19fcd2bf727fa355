package podworker

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
)

func TestARuleRestartsThePodInItsPlace(t *testing.T) {
	inWorld(t, func(w *world) {
		never, always := v1.ContainerRestartPolicyNever, v1.ContainerRestartPolicyAlways
		w.pool.Update(newPod(func(p *v1.Pod) {
			p.Spec.RestartPolicy = v1.RestartPolicyNever
			p.Spec.InitContainers = []v1.Container{{Name: "init", Image: "i"}, {Name: "side", Image: "s", RestartPolicy: &always}}
			p.Spec.Containers = []v1.Container{{Name: "app", Image: "a", RestartPolicy: &never, RestartPolicyRules: []v1.ContainerRestartRule{{
				Action:    v1.ContainerRestartRuleActionRestartAllContainers,
				ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{88}},
			}}}, {Name: "other", Image: "o"}}
		}))
		synctest.Wait()
		w.runtime.exit("init", 0)
		synctest.Wait()
		before := len(w.runtime.log())
		w.runtime.exit("app", 88)
		synctest.Wait()
		got := w.runtime.log()[before:]
		want := []string{"stop other in 2s", "remove other", "remove init", "stop side in 2s", "remove side", "remove app", "create init/0", "start init"}
		if !sameSet(got, want) || slices.Index(got, "remove app") < slices.Index(got, "remove side") || slices.Contains(got, "sandbox") {
			t.Fatalf("calls %q, want %q", got, want)
		}
		s, _ := w.status.get()
		if s.Phase != v1.PodPending {
			t.Errorf("phase %s while the init container runs again", s.Phase)
		}
		app := s.ContainerStatuses[0]
		if app.Name != "app" || app.RestartCount != 1 || app.State.Waiting == nil || app.LastTerminationState.Terminated == nil || app.LastTerminationState.Terminated.Reason != "RestartingAllContainers" {
			t.Errorf("app %+v", app)
		}
		w.runtime.exit("init", 0)
		synctest.Wait()
		s, _ = w.status.get()
		for _, c := range s.ContainerStatuses {
			if c.State.Running == nil || c.RestartCount != 1 {
				t.Errorf("container %+v", c)
			}
		}
		for _, c := range s.Conditions {
			if c.Type == v1.AllContainersRestarting && c.Status != v1.ConditionFalse || c.Type == v1.PodReady && c.Status != v1.ConditionTrue {
				t.Errorf("condition %+v", c)
			}
		}
	})
}

func TestPreStopHooksRunTogetherAndSidecarsWaitTheirTurn(t *testing.T) {
	inWorld(t, func(w *world) {
		always := v1.ContainerRestartPolicyAlways
		w.runtime.stopTakes = map[string]time.Duration{"app": 4 * time.Second, "second": 3 * time.Second}
		hook := &v1.Lifecycle{PreStop: &v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: 5}}}
		w.hooks.takes = 5 * time.Second
		grace := int64(20)
		pod := newPod(func(p *v1.Pod) {
			p.Spec.TerminationGracePeriodSeconds = &grace
			p.Spec.InitContainers = []v1.Container{{Name: "first", Image: "s", RestartPolicy: &always, Lifecycle: hook}, {Name: "second", Image: "s", RestartPolicy: &always}}
			p.Spec.Containers[0].Lifecycle = hook
		})
		w.pool.Update(pod)
		synctest.Wait()
		before := len(w.runtime.log())
		w.delete(pod, 20)
		time.Sleep(time.Minute)
		synctest.Wait()
		// Both hooks take the same 5 s, app then 4 s of what is left, the second sidecar 3 s.
		want := []string{"stop app in 15s", "stop second in 11s", "stop first in 8s", "stop sandbox"}
		if got := w.runtime.log()[before:]; !slices.Equal(got[:len(want)], want) {
			t.Errorf("calls %q, want %q", got, want)
		}
	})
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}
