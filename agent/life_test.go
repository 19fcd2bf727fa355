package agent_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/skiff-run/skiff/internal/testenv"
)

func TestLifeOfPods(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.ready()
	m.play(lifeScenes)
}

func execProbe(command ...string) *v1.Probe {
	return probeOf(v1.ProbeHandler{Exec: &v1.ExecAction{Command: command}})
}

func probeOf(h v1.ProbeHandler) *v1.Probe {
	return &v1.Probe{ProbeHandler: h, PeriodSeconds: 1, TimeoutSeconds: 5, SuccessThreshold: 1, FailureThreshold: 1}
}

func hook(command string) *v1.LifecycleHandler {
	return &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"sh", "-c", command}}}
}

const forever = "while :; do usleep 20000; done"

var lifeScenes = []scene{
	{"a container that is not live is restarted, with its probe's grace", func(m *machine) {
		live := execProbe("test", "!", "-e", "/s/sick")
		live.TerminationGracePeriodSeconds = ref(int64(2))
		m.run("liveness", v1.RestartPolicyAlways, []v1.Container{script("c", "trap '' TERM; "+forever, func(c *v1.Container) { c.LivenessProbe = live })}, scratch, func(s *v1.PodSpec) {
			s.Containers[0].Command[2] = "[ -e /s/was ] && rm -f /s/sick; touch /s/was; " + s.Containers[0].Command[2]
		})
		m.becomesReady("liveness")
		if _, err := m.exec("liveness", "c", "touch", "/s/sick"); err != nil {
			m.Fatal(err)
		}
		pod := m.eventually("liveness", "it was restarted", func(p *v1.Pod) bool { return statusOf(p, "c").RestartCount == 1 && isReady(p) })
		end := statusOf(pod, "c").LastTerminationState.Terminated
		if end.ExitCode != 137 {
			m.Errorf("end %+v", end)
		}
		m.eventComes("liveness", "Unhealthy Liveness probe failed:")
		m.eventComes("liveness", "Killing Container c failed liveness probe, will be restarted")
	}},
	{"nothing is asked before a container has started up", func(m *machine) {
		m.run("startup", v1.RestartPolicyAlways, []v1.Container{script("c", forever, func(c *v1.Container) {
			c.StartupProbe, c.LivenessProbe, c.ReadinessProbe = execProbe("test", "-e", "/s/up"), execProbe("test", "-e", "/s/up"), execProbe("test", "-e", "/s/up")
			c.StartupProbe.FailureThreshold = 100
		})}, scratch)
		m.eventComes("startup", "Unhealthy Startup probe failed:")
		if s := statusOf(m.pod("startup"), "c"); s.Ready || s.Started == nil || *s.Started {
			m.Errorf("container %+v", s)
		}
		if _, err := m.exec("startup", "c", "touch", "/s/up"); err != nil {
			m.Fatal(err)
		}
		if s := statusOf(m.becomesReady("startup"), "c"); s.RestartCount != 0 || !*s.Started {
			m.Errorf("container %+v", s)
		}
		for _, line := range m.eventsOf("startup") {
			if strings.HasPrefix(line, "Unhealthy Liveness") || strings.HasPrefix(line, "Unhealthy Readiness") {
				m.Errorf("event %q before the container had started up", line)
			}
		}
	}},
	{"a container that does not start up ends", func(m *machine) {
		m.run("nostart", v1.RestartPolicyNever, []v1.Container{script("c", "trap 'exit 5' TERM; touch /up; "+forever, func(c *v1.Container) {
			c.StartupProbe = execProbe("sh", "-c", "until [ -e /up ]; do usleep 20000; done; false")
		})})
		pod := m.ends("nostart", v1.PodFailed)
		if end := statusOf(pod, "c").State.Terminated; end.ExitCode != 5 {
			m.Errorf("end %+v", end)
		}
		m.eventComes("nostart", "Killing Container c failed startup probe")
	}},
	{"readiness comes and goes by HTTP and TCP", func(m *machine) {
		get := probeOf(v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: "/ready", Port: intstr.FromString("web")}})
		m.run("ready", v1.RestartPolicyAlways, []v1.Container{
			script("http", "httpd -f -p 8080 -h /s", func(c *v1.Container) {
				c.ReadinessProbe, c.Ports = get, []v1.ContainerPort{{Name: "web", ContainerPort: 8080}}
			}),
			script("tcp", "until [ -e /s/ready ]; do usleep 20000; done; httpd -f -p 8081 -h /s", func(c *v1.Container) {
				c.ReadinessProbe = probeOf(v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt(8081)}})
			}),
		}, scratch)
		m.eventComes("ready", "Unhealthy Readiness probe failed: HTTP probe failed with statuscode: 404")
		m.eventComes("ready", "Unhealthy Readiness probe failed: dial tcp")
		if isReady(m.pod("ready")) {
			m.Error("ready too early")
		}
		_, err := m.exec("ready", "http", "touch", "/s/ready")
		must(m, err)
		m.becomesReady("ready")
		_, err = m.exec("ready", "http", "rm", "/s/ready")
		must(m, err)
		m.eventually("ready", "it is not Ready any more", func(p *v1.Pod) bool { return !isReady(p) && !statusOf(p, "http").Ready && statusOf(p, "tcp").Ready })
	}},
	{"readiness gates are waited for", func(m *machine) {
		m.run("gate", v1.RestartPolicyAlways, []v1.Container{script("c", forever)}, func(s *v1.PodSpec) {
			s.ReadinessGates = []v1.PodReadinessGate{{ConditionType: "example.com/gate"}}
		})
		pod := m.eventually("gate", "its containers are ready", func(p *v1.Pod) bool { return conditionOf(p, v1.ContainersReady).Status == v1.ConditionTrue })
		if c := conditionOf(pod, v1.PodReady); c.Status != v1.ConditionFalse || c.Reason != "ReadinessGatesNotReady" {
			m.Errorf("condition %+v", c)
		}
		pod.Status.Conditions = append(pod.Status.Conditions, v1.PodCondition{Type: "example.com/gate", Status: v1.ConditionTrue})
		must(m, m.client.Tracker().Update(v1.SchemeGroupVersion.WithResource("pods"), pod, "default"))
		m.becomesReady("gate")
	}},
	{"hooks run after the start and before the end", func(m *machine) {
		var mu sync.Mutex
		var asked []string
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		must(m, err)
		server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, r.URL.Path+" "+r.UserAgent())
		})}
		go func() { _ = server.Serve(listener) }()
		m.Cleanup(func() { server.Close() })
		dir := m.TempDir()
		m.run("hooks", v1.RestartPolicyAlways, []v1.Container{
			script("exec", "trap 'echo term >> /s/log; exit 0' TERM; touch /up; "+forever, func(c *v1.Container) {
				c.ReadinessProbe = execProbe("test", "-e", "/up")
				c.Lifecycle = &v1.Lifecycle{PostStart: hook("echo started > /s/log"), PreStop: hook("echo stopping >> /s/log")}
			}),
			script("http", "trap 'exit 0' TERM; "+forever, func(c *v1.Container) {
				c.Lifecycle = &v1.Lifecycle{PreStop: &v1.LifecycleHandler{HTTPGet: &v1.HTTPGetAction{
					Host: "127.0.0.1", Path: "/bye", Port: intstr.FromInt(listener.Addr().(*net.TCPAddr).Port),
				}}}
			}),
			script("sleep", "trap 'exit 0' TERM; "+forever, func(c *v1.Container) {
				c.Lifecycle = &v1.Lifecycle{PreStop: &v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: 1}}}
			}),
		}, folder(dir))
		m.becomesReady("hooks")
		m.endPod("hooks", 20)
		log, err := os.ReadFile(filepath.Join(dir, "log"))
		must(m, err)
		m.expect(string(log), "started\nstopping\nterm")
		mu.Lock()
		defer mu.Unlock()
		m.expect(strings.Join(asked, ","), "/bye kube-lifecycle/1.37")
	}},
	{"a hook that fails after the start ends the container", func(m *machine) {
		m.run("badhook", v1.RestartPolicyNever, []v1.Container{script("c", "trap 'exit 6' TERM; touch /up; "+forever, func(c *v1.Container) {
			c.Lifecycle = &v1.Lifecycle{PostStart: hook("until [ -e /up ]; do usleep 20000; done; echo secret; exit 3")}
		})})
		pod := m.ends("badhook", v1.PodFailed)
		if end := statusOf(pod, "c").State.Terminated; end.ExitCode != 6 {
			m.Errorf("end %+v", end)
		}
		m.eventComes("badhook", "FailedPostStartHook PostStartHook failed")
		m.eventComes("badhook", "Killing FailedPostStartHook")
		for _, line := range m.eventsOf("badhook") {
			if strings.Contains(line, "secret") {
				m.Errorf("event %q tells what the hook said", line)
			}
		}
	}},
	{"a hook that does not end has the pod's time and no more", func(m *machine) {
		dir := m.TempDir()
		m.run("slowhook", v1.RestartPolicyAlways, []v1.Container{script("c", "trap 'echo term >> /s/log; exit 0' TERM; touch /up; "+forever, func(c *v1.Container) {
			c.ReadinessProbe = execProbe("test", "-e", "/up")
			c.Lifecycle = &v1.Lifecycle{PreStop: hook("echo hook >> /s/log; sleep 1000")}
		})}, folder(dir))
		m.becomesReady("slowhook")
		m.endPod("slowhook", 2)
		log, err := os.ReadFile(filepath.Join(dir, "log"))
		must(m, err)
		m.expect(string(log), "hook\nterm")
	}},
	{"the stop signal is the pod's choice", func(m *machine) {
		dir := m.TempDir()
		m.run("signal", v1.RestartPolicyAlways, []v1.Container{script("c", "trap 'echo usr1 > /s/log; exit 0' USR1; trap 'echo term > /s/log; exit 0' TERM; touch /s/up; "+forever, func(c *v1.Container) {
			c.Lifecycle = &v1.Lifecycle{StopSignal: ref(v1.SIGUSR1)}
			c.ReadinessProbe = execProbe("test", "-e", "/s/up")
		})}, folder(dir))
		pod := m.becomesReady("signal")
		if s := statusOf(pod, "c").StopSignal; s == nil || *s != v1.SIGUSR1 {
			m.Errorf("stop signal in the status: %v", s)
		}
		m.endPod("signal", 20)
		log, err := os.ReadFile(filepath.Join(dir, "log"))
		must(m, err)
		m.expect(string(log), "usr1")
	}},
	{"a stubborn container is killed after its grace, or at once", func(m *machine) {
		for name, grace := range map[string]int64{"stubborn": 1, "atonce": 0} {
			m.run(name, v1.RestartPolicyAlways, []v1.Container{script("c", "trap '' TERM; touch /s/up; "+forever, func(c *v1.Container) { c.ReadinessProbe = execProbe("test", "-e", "/s/up") })}, scratch)
			m.becomesReady(name)
			m.endPod(name, grace)
		}
	}},
	{"a pod has so long and no longer", func(m *machine) {
		m.run("deadline", v1.RestartPolicyAlways, []v1.Container{script("c", "trap 'exit 0' TERM; "+forever)}, func(s *v1.PodSpec) { s.ActiveDeadlineSeconds = ref(int64(2)) })
		pod := m.ends("deadline", v1.PodFailed)
		m.expect(pod.Status.Reason+" "+pod.Status.Message, "DeadlineExceeded Pod was active on the node longer than the specified deadline")
		if s := statusOf(pod, "c").State.Terminated; s == nil {
			m.Errorf("status %+v", pod.Status)
		}
	}},
	{"the image is exchanged in place", func(m *machine) {
		m.run("exchange", v1.RestartPolicyAlways, []v1.Container{script("c", "trap 'exit 0' TERM; "+forever)})
		pod := m.becomesReady("exchange")
		pod.Spec.Containers[0].Image = "busybox:test"
		pod.Generation++
		must(m, m.client.Tracker().Update(v1.SchemeGroupVersion.WithResource("pods"), pod, "default"))
		m.eventually("exchange", "the new image runs", func(p *v1.Pod) bool {
			s := statusOf(p, "c")
			return s.Image == "busybox:test" && s.RestartCount == 1 && isReady(p)
		})
		m.eventComes("exchange", "Killing Container c definition changed, will be restarted")
	}},
}

func conditionOf(pod *v1.Pod, kind v1.PodConditionType) v1.PodCondition {
	for _, c := range pod.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return v1.PodCondition{}
}

func TestProbesWithoutAgentsMemory(t *testing.T) {
	// A sidecar that had started up before the agent died lets the rest of the pod start.
	m := newMachine(t)
	m.start()
	m.ready()
	m.run("late", v1.RestartPolicyAlways, []v1.Container{script("app", forever)}, func(s *v1.PodSpec) {
		s.InitContainers = []v1.Container{
			script("side", forever, sidecar, func(c *v1.Container) { c.StartupProbe = execProbe("true"); c.StartupProbe.PeriodSeconds = 300 }),
			script("gate", "until [ -e /s/go ]; do usleep 20000; done"),
		}
	}, scratch)
	m.eventually("late", "the gate runs", func(p *v1.Pod) bool { return statusOf(p, "gate").State.Running != nil })
	m.stop()
	m.start()
	testenv.Eventually(t, 20*time.Second, func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", m.settings.Port))
		if err != nil {
			return false
		}
		conn.Close()
		_, body := m.get("/pods")
		return strings.Contains(body, `"name":"late"`)
	}, "the new agent knows the pod")
	if _, err := m.exec("late", "gate", "touch", "/s/go"); err != nil {
		t.Fatal(err)
	}
	m.becomesReady("late")
}
