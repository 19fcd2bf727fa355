package podworker

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// resized is version generation of the pod with a CPU request.
func resized(generation int64, cpu string, change ...func(*v1.Pod)) *v1.Pod {
	return newPod(append([]func(*v1.Pod){func(p *v1.Pod) {
		p.Generation = generation
		p.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu)}
	}}, change...)...)
}

func cond(s *v1.PodStatus, t v1.PodConditionType) *v1.PodCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return &s.Conditions[i]
		}
	}
	return nil
}

func inForce(s *v1.PodStatus) (allocated, actuated string) {
	c := s.ContainerStatuses[0]
	return c.AllocatedResources.Cpu().String(), c.Resources.Requests.Cpu().String()
}

func (w *world) decide(ctx context.Context) {
	go w.pool.RunResizes(ctx)
	synctest.Wait()
}

func TestAResizeChangesARunningContainer(t *testing.T) {
	inWorld(t, func(w *world) {
		w.decide(w.pool.ctx)
		w.pool.Update(resized(1, "1"))
		synctest.Wait()
		w.pool.Update(resized(2, "2"))
		synctest.Wait()
		calls := w.runtime.log()
		if calls[len(calls)-1] != "limit app to 2048 shares" {
			t.Errorf("calls %q", calls)
		}
		s, _ := w.status.get()
		if allocated, actuated := inForce(s); allocated != "2" || actuated != "2" || s.ObservedGeneration != 2 {
			t.Errorf("allocated %s, in force %s, generation %d", allocated, actuated, s.ObservedGeneration)
		}
		if c := cond(s, v1.PodResizeInProgress); c != nil {
			t.Errorf("still in progress: %+v", c)
		}
		events := strings.Join(w.events.all(), "\n")
		for _, want := range []string{
			`ResizeStarted Pod resize started: {"containers":[{"name":"app","resources":{"requests":{"cpu":"2"}}}],"generation":2}`,
			`ResizeCompleted Pod resize completed: {"containers":[{"name":"app","resources":{"requests":{"cpu":"2"}}}],"generation":2}`,
		} {
			if !strings.Contains(events, want) {
				t.Errorf("no event %q in:\n%s", want, events)
			}
		}
	})
}

func TestAResizeThatDoesNotFitWaitsUntilItDoes(t *testing.T) {
	inWorld(t, func(w *world) {
		w.decide(w.pool.ctx)
		w.pool.Update(resized(1, "1"))
		synctest.Wait()
		w.mu.Lock()
		w.refuseResize = "Node didn't have enough resource: cpu, requested: 9000, used: 0, capacity: 2000"
		w.mu.Unlock()
		w.pool.Update(resized(2, "9"))
		synctest.Wait()
		s, _ := w.status.get()
		c := cond(s, v1.PodResizePending)
		if c == nil || c.Reason != v1.PodReasonDeferred || c.Message != w.refuseResize || c.ObservedGeneration != 2 {
			t.Fatalf("condition %+v", c)
		}
		if allocated, actuated := inForce(s); allocated != "1" || actuated != "1" {
			t.Errorf("allocated %s, in force %s", allocated, actuated)
		}
		if !slices.ContainsFunc(w.events.all(), func(e string) bool { return strings.HasPrefix(e, "ResizeDeferred Pod resize Deferred: {") }) {
			t.Errorf("events %q", w.events.all())
		}
		// An agent that starts anew knows what was given, whatever the spec says by then.
		again := NewPool(w.pool.ctx, w.pool.config)
		restarted := resized(2, "9", func(p *v1.Pod) { p.Status = *s })
		again.Update(restarted)
		synctest.Wait()
		if got := again.Pods()[0].Spec.Containers[0].Resources.Requests.Cpu().String(); got != "1" {
			t.Errorf("a new agent thinks the pod has %s", got)
		}
		w.mu.Lock()
		w.refuseResize = ""
		w.mu.Unlock()
		w.pool.askResizes()
		synctest.Wait()
		s, _ = w.status.get()
		if allocated, actuated := inForce(s); allocated != "9" || actuated != "9" || cond(s, v1.PodResizePending) != nil {
			t.Errorf("allocated %s, in force %s, conditions %v", allocated, actuated, s.Conditions)
		}
	})
}

func TestAResizeMayRestartTheContainer(t *testing.T) {
	inWorld(t, func(w *world) {
		w.decide(w.pool.ctx)
		policy := func(p *v1.Pod) {
			p.Spec.Containers[0].ResizePolicy = []v1.ContainerResizePolicy{{ResourceName: v1.ResourceCPU, RestartPolicy: v1.RestartContainer}}
		}
		w.pool.Update(resized(1, "1", policy))
		synctest.Wait()
		w.pool.Update(resized(2, "2", policy))
		synctest.Wait()
		if !slices.Contains(w.events.all(), "Killing Container app resize requires restart") {
			t.Errorf("events %q", w.events.all())
		}
		calls := w.runtime.log()
		if !slices.Contains(calls, "create app/1") || slices.ContainsFunc(calls, func(c string) bool { return strings.HasPrefix(c, "limit ") }) {
			t.Errorf("calls %q", calls)
		}
		s, _ := w.status.get()
		if _, actuated := inForce(s); actuated != "2" || s.ContainerStatuses[0].RestartCount != 1 || cond(s, v1.PodResizeInProgress) != nil {
			t.Errorf("status %+v", s)
		}
	})
}
