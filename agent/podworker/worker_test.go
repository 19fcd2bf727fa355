package podworker

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/agent/image"
	"github.com/skiff-run/skiff/agent/plan"
	"github.com/skiff-run/skiff/agent/podstatus"
)

func TestAPodBecomesReadyAndSaysSo(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool.Update(newPod())
		synctest.Wait()
		if got, want := w.runtime.log(), []string{"sandbox", "create app/0", "start app"}; !slices.Equal(got, want) {
			t.Errorf("calls %q, want %q", got, want)
		}
		s, _ := w.status.get()
		if s.Phase != v1.PodRunning || s.PodIP != "10.244.0.5" || s.HostIP != "192.0.2.7" || !s.ContainerStatuses[0].Ready {
			t.Errorf("status %+v", s)
		}
		if got, want := w.events.all(), []string{"Created Container created", "Started Container started"}; !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
	})
}

func TestARestartedAgentLeavesARunningPodAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool.Update(newPod())
		synctest.Wait()
		before := len(w.runtime.log())
		again := NewPool(w.pool.ctx, w.pool.config)
		pod := newPod()
		s, _ := w.status.get()
		pod.Status = *s
		again.Update(pod)
		synctest.Wait()
		if calls := w.runtime.log()[before:]; len(calls) != 0 {
			t.Errorf("a new agent did %q", calls)
		}
		after, _ := w.status.get()
		if !podstatus.Equal(s, after) {
			t.Errorf("status changed from %+v to %+v", s, after)
		}
	})
}

func TestAStatusThatOthersChangedIsSaidAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool.Update(newPod())
		synctest.Wait()
		said := func() int {
			w.status.mu.Lock()
			defer w.status.mu.Unlock()
			return w.status.sets
		}
		before := said()
		w.pool.Update(newPod())
		synctest.Wait()
		if said() != before {
			t.Error("a status nobody changed is said again")
		}
		w.status.mu.Lock()
		w.status.contradicted = true
		w.status.mu.Unlock()
		w.pool.Update(newPod())
		synctest.Wait()
		if said() != before+1 {
			t.Errorf("said %d times, want once more than %d", said(), before)
		}
	})
}

func TestACrashingContainerBacksOff(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool.Update(newPod())
		synctest.Wait()
		w.runtime.exit("app", 1)
		synctest.Wait()
		if got := w.runtime.log(); got[len(got)-1] != "start app" || !slices.Contains(got, "create app/1") {
			t.Fatalf("the first restart is immediate, but calls are %q", got)
		}
		w.runtime.exit("app", 1)
		synctest.Wait()
		s, _ := w.status.get()
		c := s.ContainerStatuses[0]
		if c.State.Waiting == nil || c.State.Waiting.Reason != "CrashLoopBackOff" || c.RestartCount != 1 || c.LastTerminationState.Terminated == nil {
			t.Fatalf("status %+v", c)
		}
		if want := "back-off 10s restarting failed container=app pod=web_default(u1)"; c.State.Waiting.Message != want {
			t.Errorf("message %q, want %q", c.State.Waiting.Message, want)
		}
		if !slices.Contains(w.events.all(), "BackOff Back-off restarting failed container app in pod web_default(u1)") {
			t.Errorf("events %q", w.events.all())
		}
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if slices.Contains(w.runtime.log(), "create app/2") {
			t.Error("restarted before the back-off was over")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !slices.Contains(w.runtime.log(), "create app/2") {
			t.Errorf("not restarted after the back-off: %q", w.runtime.log())
		}
		if !slices.Contains(w.runtime.log(), "remove app") {
			t.Errorf("the oldest ended container was kept: %q", w.runtime.log())
		}
	})
}

func TestADeletedPodIsStoppedAndThenRemovedFromTheAPI(t *testing.T) {
	inWorld(t, func(w *world) {
		w.runtime.stopTakes["app"] = 3 * time.Second
		w.pool.Update(newPod())
		synctest.Wait()
		grace := int64(30)
		deleted := newPod(func(p *v1.Pod) {
			now := metav1.Now()
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &grace
		})
		w.pool.Update(deleted)
		synctest.Wait()
		if _, finished := w.status.get(); finished {
			t.Fatal("removed from the API while the container was stopping")
		}
		if !slices.Contains(w.runtime.log(), "stop app in 30s") || !slices.Contains(w.events.all(), "Killing Stopping container app") {
			t.Fatalf("calls %q, events %q", w.runtime.log(), w.events.all())
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		s, finished := w.status.get()
		if !finished || s.Phase != v1.PodFailed || s.ContainerStatuses[0].State.Terminated == nil {
			t.Fatalf("finished %v, status %+v", finished, s)
		}
		w.pool.Remove("u1")
		synctest.Wait()
		if w.pool.Known("u1") || len(w.runtime.containers) != 0 || len(w.runtime.sandboxes) != 0 {
			t.Errorf("remains: %v %v", w.runtime.containers, w.runtime.sandboxes)
		}
	})
}

func TestAShorterGracePeriodShortensAStopInProgress(t *testing.T) {
	inWorld(t, func(w *world) {
		w.runtime.stopTakes["app"] = time.Hour
		w.pool.Update(newPod())
		synctest.Wait()
		remove := func(grace int64) *v1.Pod {
			return newPod(func(p *v1.Pod) {
				now := metav1.Now()
				p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &grace
			})
		}
		w.pool.Update(remove(600))
		synctest.Wait()
		w.pool.Update(remove(1))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if _, finished := w.status.get(); !finished {
			t.Errorf("still stopping: %q", w.runtime.log())
		}
	})
}

func TestAJobPodEndsWithItsPhase(t *testing.T) {
	for name, test := range map[string]struct {
		code int32
		want v1.PodPhase
	}{"success": {0, v1.PodSucceeded}, "failure": {3, v1.PodFailed}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.pool.Update(newPod(func(p *v1.Pod) { p.Spec.RestartPolicy = v1.RestartPolicyNever }))
				synctest.Wait()
				w.runtime.exit("app", test.code)
				synctest.Wait()
				if w.phase() != test.want {
					t.Errorf("phase %s, want %s", w.phase(), test.want)
				}
				if got := w.runtime.log(); got[len(got)-1] != "stop sandbox" {
					t.Errorf("the network is kept: %q", got)
				}
				if len(w.runtime.containers) != 1 {
					t.Error("the ended container is gone, and its log with it")
				}
			})
		})
	}
}

func TestSidecarsEndAfterTheOthersAndDoNotKeepAPodAlive(t *testing.T) {
	inWorld(t, func(w *world) {
		always := v1.ContainerRestartPolicyAlways
		w.pool.Update(newPod(func(p *v1.Pod) {
			p.Spec.RestartPolicy = v1.RestartPolicyNever
			p.Spec.InitContainers = []v1.Container{{Name: "init", Image: "i"}, {Name: "side", Image: "s", RestartPolicy: &always}}
		}))
		synctest.Wait()
		if got := w.runtime.log(); slices.Contains(got, "start side") {
			t.Fatalf("the sidecar did not wait for the init container: %q", got)
		}
		w.runtime.exit("init", 0)
		synctest.Wait()
		got := w.runtime.log()
		if slices.Index(got, "start side") > slices.Index(got, "start app") || !slices.Contains(got, "start app") {
			t.Fatalf("calls %q", got)
		}
		w.runtime.exit("app", 0)
		synctest.Wait()
		if got := w.runtime.log(); !slices.Contains(got, "stop side in 30s") || w.phase() != v1.PodSucceeded {
			t.Errorf("phase %s, calls %q", w.phase(), got)
		}
	})
}

func TestAFailedLivenessProbeRestartsTheContainer(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool.Update(newPod(func(p *v1.Pod) { p.Spec.Containers[0].LivenessProbe = &v1.Probe{} }))
		synctest.Wait()
		s, _ := w.status.get()
		w.probes.mu.Lock()
		w.probes.liveness[strings.TrimPrefix(s.ContainerStatuses[0].ContainerID, "containerd://")] = plan.Failure
		w.probes.mu.Unlock()
		w.pool.Wake("u1")
		synctest.Wait()
		if !slices.Contains(w.events.all(), "Killing Container app failed liveness probe, will be restarted") {
			t.Errorf("events %q", w.events.all())
		}
		if !slices.Contains(w.runtime.log(), "create app/1") {
			t.Errorf("calls %q", w.runtime.log())
		}
	})
}

func TestAMissingImageShowsItsReason(t *testing.T) {
	inWorld(t, func(w *world) {
		w.images.err = &image.Failure{Reason: "ImagePullBackOff", Message: "Back-off pulling image \"app:1\"", RetryAt: time.Now().Add(time.Minute)}
		w.pool.Update(newPod())
		synctest.Wait()
		s, _ := w.status.get()
		if waiting := s.ContainerStatuses[0].State.Waiting; waiting == nil || waiting.Reason != "ImagePullBackOff" || s.Phase != v1.PodPending {
			t.Errorf("status %+v", s.ContainerStatuses[0])
		}
	})
}

func TestMissingVolumesAreReportedAndTriedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.volumes.err = errors.New(`MountVolume.SetUp failed for volume "v" : configmap "c" not found`)
		w.pool.Update(newPod())
		synctest.Wait()
		if slices.Contains(w.runtime.log(), "sandbox") {
			t.Error("a sandbox was made without volumes")
		}
		if !slices.Contains(w.events.all(), `FailedMount MountVolume.SetUp failed for volume "v" : configmap "c" not found`) {
			t.Errorf("events %q", w.events.all())
		}
		w.volumes.mu.Lock()
		w.volumes.err = nil
		w.volumes.mu.Unlock()
		w.pool.Refresh("u1")
		synctest.Wait()
		if w.phase() != v1.PodRunning {
			t.Errorf("phase %s after the object appeared", w.phase())
		}
	})
}

func TestAnOrphanIsStoppedAndPurged(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool.Update(newPod())
		synctest.Wait()
		again := NewPool(w.pool.ctx, w.pool.config)
		w.runtime.mu.Lock()
		w.runtime.wake = again.WakeAll
		w.runtime.mu.Unlock()
		again.Adopt("u1", "default", "web")
		synctest.Wait()
		if len(w.runtime.containers) != 0 || len(w.runtime.sandboxes) != 0 || again.Known("u1") {
			t.Errorf("remains after %q", w.runtime.log())
		}
	})
}

func TestAPodPastItsDeadlineFails(t *testing.T) {
	inWorld(t, func(w *world) {
		limit := int64(60)
		w.pool.Update(newPod(func(p *v1.Pod) { p.Spec.ActiveDeadlineSeconds = &limit }))
		time.Sleep(61 * time.Second)
		synctest.Wait()
		s, _ := w.status.get()
		if s.Phase != v1.PodFailed || s.Reason != "DeadlineExceeded" {
			t.Errorf("status %+v", s)
		}
	})
}

func TestARefusedPodFailsWithTheReason(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool.config.Admit = func(*v1.Pod, []*v1.Pod) (string, string, bool) { return "OutOfcpu", "too much", false }
		w.pool.Update(newPod())
		synctest.Wait()
		s, _ := w.status.get()
		if s.Phase != v1.PodFailed || s.Reason != "OutOfcpu" || s.Message != "Pod was rejected: too much" || len(w.runtime.log()) != 0 {
			t.Errorf("status %+v, calls %q", s, w.runtime.log())
		}
	})
}
