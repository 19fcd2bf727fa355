package agent_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/skiff-run/skiff/internal/testenv"
)

func TestContainers(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.ready()
	m.play(containerScenes)
}

// onExit is a restart rule.
func onExit(action v1.ContainerRestartRuleAction, code int32) func(*v1.Container) {
	return func(c *v1.Container) {
		c.RestartPolicy = ref(v1.ContainerRestartPolicyNever)
		c.RestartPolicyRules = []v1.ContainerRestartRule{{Action: action, ExitCodes: &v1.ContainerRestartRuleOnExitCodes{
			Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{code},
		}}}
	}
}

func sidecar(c *v1.Container) { c.RestartPolicy = ref(v1.ContainerRestartPolicyAlways) }

func env(name, value string) v1.EnvVar { return v1.EnvVar{Name: name, Value: value} }

func envFrom(name string, source v1.EnvVarSource) v1.EnvVar {
	return v1.EnvVar{Name: name, ValueFrom: &source}
}

var containerScenes = []scene{
	{"init containers and sidecars start in order and end in reverse", func(m *machine) {
		dir := m.TempDir()
		say := func(what string) string { return "echo " + what + " >> /s/log" }
		until := func(name string) string {
			return "trap '" + say("end-"+name) + "; exit 0' TERM; " + say("start-"+name) + "; while :; do usleep 20000; done"
		}
		started := func(c *v1.Container) {
			c.StartupProbe = &v1.Probe{ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"grep", "-q", "start-" + c.Name, "/s/log"}}}, PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: 30}
		}
		m.run("order", v1.RestartPolicyAlways, []v1.Container{script("app", until("app"), started)}, func(s *v1.PodSpec) {
			s.InitContainers = []v1.Container{
				script("one", say("one")), script("early", until("early"), sidecar, started), script("two", say("two")), script("late", until("late"), sidecar, started),
			}
		}, folder(dir))
		m.becomesReady("order")
		m.endPod("order", 20)
		log, err := os.ReadFile(filepath.Join(dir, "log"))
		must(m, err)
		m.expect(strings.Join(strings.Fields(string(log)), " "), "one start-early two start-late start-app end-app end-late end-early")
	}},
	{"a sidecar is restarted and does not keep a finished pod alive", func(m *machine) {
		m.run("aside", v1.RestartPolicyNever, []v1.Container{script("app", "while [ ! -e /s/again ]; do usleep 20000; done")}, func(s *v1.PodSpec) {
			s.InitContainers = []v1.Container{script("side", "[ -e /s/was ] && touch /s/again; touch /s/was; [ -e /s/again ] || exit 3; sleep 1000", sidecar)}
		}, scratch)
		pod := m.ends("aside", v1.PodSucceeded)
		if s := statusOf(pod, "side"); s.RestartCount != 1 || s.State.Terminated == nil {
			m.Errorf("sidecar: %+v", s)
		}
	}},
	{"a failing init container ends the pod", func(m *machine) {
		m.run("badinit", v1.RestartPolicyNever, []v1.Container{script("app", "true")}, func(s *v1.PodSpec) {
			s.InitContainers = []v1.Container{script("init", "exit 9")}
		})
		pod := m.ends("badinit", v1.PodFailed)
		if s := statusOf(pod, "init"); s.State.Terminated.ExitCode != 9 || statusOf(pod, "app").State.Waiting == nil {
			m.Errorf("status %+v", pod.Status)
		}
	}},
	{"a rule restarts a container by its exit code", func(m *machine) {
		m.run("rule", v1.RestartPolicyNever, []v1.Container{script("c", "[ -e /s/was ] || { touch /s/was; exit 42; }", onExit(v1.ContainerRestartRuleActionRestart, 42))}, scratch)
		if s := statusOf(m.ends("rule", v1.PodSucceeded), "c"); s.RestartCount != 1 || s.LastTerminationState.Terminated.ExitCode != 42 {
			m.Errorf("container %+v", s)
		}
	}},
	{"a rule restarts all containers", func(m *machine) {
		m.run("all", v1.RestartPolicyNever, []v1.Container{
			script("trigger", "[ $(cat /s/log | tr -dc i) = ii ] || exit 88", onExit(v1.ContainerRestartRuleActionRestartAllContainers, 88)),
			script("other", "while [ $(cat /s/log | tr -dc i) != ii ]; do usleep 20000; done"),
		}, func(s *v1.PodSpec) { s.InitContainers = []v1.Container{script("init", "echo i >> /s/log")} }, scratch)
		pod := m.ends("all", v1.PodSucceeded)
		for _, name := range []string{"init", "trigger", "other"} {
			if s := statusOf(pod, name); s.RestartCount != 1 || s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.Reason != "RestartingAllContainers" {
				m.Errorf("container %+v", s)
			}
		}
	}},
	{"a container tells how it ended", func(m *machine) {
		file := func(c *v1.Container) { c.TerminationMessagePath = "/s/last words" }
		fallback := func(c *v1.Container) { c.TerminationMessagePolicy = v1.TerminationMessageFallbackToLogsOnError }
		limited := func(c *v1.Container) {
			c.Command = []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=100M"}
			c.Resources.Limits = v1.ResourceList{v1.ResourceMemory: resource.MustParse("16Mi")}
		}
		m.run("ends", v1.RestartPolicyNever, []v1.Container{
			script("done", "echo all is well > /dev/termination-log"), script("path", "echo elsewhere > '/s/last words'; exit 3", file), script("log", "echo from the log; exit 4", fallback),
			script("silent", "echo from the log; exit 5"), script("oom", "", limited), script("start", "", func(c *v1.Container) { c.Command = []string{"/no/such"} }),
		})
		pod := m.ends("ends", v1.PodFailed)
		for name, want := range map[string]string{
			"done": "0 Completed all is well", "path": "3 Error elsewhere", "log": "4 Error from the log", "silent": "5 Error", "oom": "137 OOMKilled",
		} {
			s := statusOf(pod, name)
			end := s.State.Terminated
			if got := strings.TrimSpace(fmt.Sprintf("%d %s %s", end.ExitCode, end.Reason, end.Message)); got != want {
				m.Errorf("%s: %q, want %q", name, got, want)
			}
			if !strings.HasPrefix(s.ImageID, "sha256:") && !strings.Contains(s.ImageID, "@sha256:") || s.Image != testImage {
				m.Errorf("%s: image %q, id %q", name, s.Image, s.ImageID)
			}
		}
		if end := statusOf(pod, "start").State.Terminated; end.Reason != "StartError" || end.ExitCode != 128 || !strings.Contains(end.Message, "/no/such") {
			m.Errorf("start: %+v", end)
		}
	}},
	{"restarts are counted on by a new agent's view of the runtime", func(m *machine) {
		m.run("crash", v1.RestartPolicyOnFailure, []v1.Container{script("c", "echo x >> /s/log; [ $(cat /s/log | tr -dc x) = xx ] || exit 1; sleep 1000")}, scratch)
		pod := m.eventually("crash", "it was restarted and is Ready", func(p *v1.Pod) bool { return isReady(p) && statusOf(p, "c").RestartCount == 1 })
		if statusOf(pod, "c").LastTerminationState.Terminated == nil {
			m.Errorf("status %+v", pod.Status)
		}
		if _, body := m.get("/containerLogs/default/crash/c?previous=true"); body != "" {
			m.Errorf("previous log %q", body)
		}
	}},
	{"a crashing container backs off", func(m *machine) {
		m.run("loop", v1.RestartPolicyAlways, []v1.Container{script("c", "exit 1")})
		pod := m.eventually("loop", "it is held back", func(p *v1.Pod) bool {
			w := statusOf(p, "c").State.Waiting
			return w != nil && w.Reason == "CrashLoopBackOff"
		})
		s := statusOf(pod, "c")
		m.expect(s.State.Waiting.Message, "back-off 10s restarting failed container=c pod=loop_default(uid-of-loop)")
		if s.RestartCount != 1 || s.LastTerminationState.Terminated.ExitCode != 1 {
			m.Errorf("container %+v", s)
		}
		m.eventComes("loop", "BackOff Back-off restarting failed container c in pod loop_default(uid-of-loop)")
	}},
	{"input is passed on, once or again and again", func(m *machine) {
		echo := "while read line; do echo got $line; done; echo end"
		m.run("input", v1.RestartPolicyNever, []v1.Container{
			script("once", echo, func(c *v1.Container) { c.Stdin, c.StdinOnce = true, true }),
			script("term", "test -t 0 && echo terminal; read line; echo got $line", func(c *v1.Container) { c.Stdin, c.TTY = true, true }),
		})
		m.eventually("input", "both run", func(p *v1.Pod) bool {
			return statusOf(p, "once").State.Running != nil && statusOf(p, "term").State.Running != nil
		})
		out, err := m.attach("input", "once", "one\ntwo\n", false)
		must(m, err)
		m.expect(out, "got one\ngot two\nend")
		_, err = m.attach("input", "term", "hello\n", true)
		must(m, err)
		m.ends("input", v1.PodSucceeded)
		m.expect(strings.ReplaceAll(m.log("input", "term"), "\r", ""), "terminal\nhello\ngot hello")
	}},
	{"the environment says what was asked for", func(m *machine) {
		m.run("env", v1.RestartPolicyNever, []v1.Container{script("c", "echo $0 $1; env | grep ^T_ | sort", func(c *v1.Container) {
			c.Args = []string{"$(T_PLAIN)", "$$(T_PLAIN) $(T_NONE)"}
			c.WorkingDir = "/s"
			c.Resources = v1.ResourceRequirements{
				Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("125m"), v1.ResourceMemory: resource.MustParse("16Mi")},
				Limits:   v1.ResourceList{v1.ResourceMemory: resource.MustParse("64Mi")},
			}
			c.Env = []v1.EnvVar{
				env("T_PLAIN", "v"), env("T_EXPANDED", "$(T_PLAIN)w $$(T_PLAIN)"), envFrom("T_NAME", v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.name"}}),
				envFrom("T_LABEL", v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels['app']"}}),
				envFrom("T_NODE", v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}),
				envFrom("T_HOST", v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "status.hostIP"}}),
				envFrom("T_CPU", v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "requests.cpu", Divisor: resource.MustParse("1m")}}),
				envFrom("T_MEMORY", v1.EnvVarSource{ResourceFieldRef: &v1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}),
				envFrom("T_FILE", v1.EnvVarSource{FileKeyRef: &v1.FileKeySelector{VolumeName: "s", Path: "env", Key: "COLOR"}}),
				envFrom("T_GONE", v1.EnvVarSource{FileKeyRef: &v1.FileKeySelector{VolumeName: "s", Path: "env", Key: "NO", Optional: ref(true)}}),
			}
		})}, func(s *v1.PodSpec) {
			s.InitContainers = []v1.Container{script("init", `printf "# made by init\nCOLOR='deep blue'\n" > /s/env`)}
		}, scratch)
		m.ends("env", v1.PodSucceeded)
		m.expect(m.log("env", "c"), "v $(T_PLAIN) $(T_NONE)\nT_CPU=125\nT_EXPANDED=vw $(T_PLAIN)\nT_FILE=deep blue\nT_HOST=127.0.0.1\nT_LABEL=env\nT_MEMORY=64\nT_NAME=env\nT_NODE=n1\nT_PLAIN=v")
	}},
	{"what the environment lacks holds the container back", func(m *machine) {
		m.run("lacks", v1.RestartPolicyNever, []v1.Container{script("c", "true", func(c *v1.Container) {
			c.Env = []v1.EnvVar{envFrom("X", v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: v1.LocalObjectReference{Name: "none"}, Key: "k"}})}
		})})
		pod := m.eventually("lacks", "it says why it waits", func(p *v1.Pod) bool {
			w := statusOf(p, "c").State.Waiting
			return w != nil && w.Reason == "CreateContainerConfigError"
		})
		m.expect(statusOf(pod, "c").State.Waiting.Message, `secret "none" not found`)
	}},
	{"names and addresses of the pod", func(m *machine) {
		got := m.output("names", "hostname; cat /etc/hostname; grep -v '^#' /etc/hosts | grep -v ip6 | grep -v ^127; cat /etc/resolv.conf", func(s *v1.PodSpec) {
			s.Hostname, s.Subdomain, s.SetHostnameAsFQDN = "db-0", "db", ref(true)
			s.HostAliases = []v1.HostAlias{{IP: "192.0.2.9", Hostnames: []string{"nine", "neun"}}}
			s.DNSPolicy = v1.DNSNone
			s.DNSConfig = &v1.PodDNSConfig{Nameservers: []string{"192.0.2.53"}, Searches: []string{"example.com"}, Options: []v1.PodDNSConfigOption{{Name: "ndots", Value: ref("2")}, {Name: "rotate"}}}
		})
		ip := m.pod("names").Status.PodIP
		fqdn := "db-0.db.default.svc.cluster.local"
		m.expect(strings.ReplaceAll(got, "\n\n", "\n"), fqdn+"\n"+fqdn+"\n"+ip+"\t"+fqdn+"\tdb-0\n192.0.2.9\tnine\tneun\nsearch example.com\nnameserver 192.0.2.53\noptions ndots:2 rotate")
		m.expect(m.output("override", "hostname; echo $HOSTNAME", func(s *v1.PodSpec) {
			s.Hostname, s.Subdomain, s.HostnameOverride = "db-0", "db", ref("a.b.example.com")
		}), "a.b.example.com\na.b.example.com")
	}},
	{"namespaces of the node", func(m *machine) {
		script := "for n in net pid ipc uts; do readlink /proc/self/ns/$n || ls -l /proc/self/ns/$n; done"
		got := m.output("host", script+"; grep -c 'host network' /etc/hosts", func(s *v1.PodSpec) { s.HostNetwork, s.HostPID, s.HostIPC = true, true, true })
		for _, ns := range []string{"net", "pid", "ipc", "uts"} {
			want, err := os.Readlink("/proc/self/ns/" + ns)
			must(m, err)
			if !strings.Contains(got, want) {
				m.Errorf("%s is not the node's: %s", ns, got)
			}
		}
		if got := m.output("own", script, func(*v1.PodSpec) {}); strings.Contains(got, readlink(m, "net")) || strings.Contains(got, readlink(m, "pid")) || strings.Contains(got, readlink(m, "ipc")) {
			m.Errorf("a pod has the node's namespaces: %s", got)
		}
	}},
	{"a pod's containers may see each other's processes", func(m *machine) {
		m.run("shared", v1.RestartPolicyNever, []v1.Container{
			script("a", "sleep 4243", func(c *v1.Container) { c.Command = []string{"sleep", "4243"} }), script("b", "while ! ps | grep -q 'sleep 424[3]'; do usleep 20000; done; kill $(ps | grep 'sleep 424[3]' | tr -s ' ' | sed 's/^ //' 2>/dev/null | head -1 | tr ' ' '\\n' | grep -v '^$' | head -1); echo killed"),
		}, func(s *v1.PodSpec) { s.ShareProcessNamespace = ref(true) })
		pod := m.ends("shared", v1.PodFailed)
		if end := statusOf(pod, "a").State.Terminated; end.ExitCode != 143 {
			m.Errorf("a: %+v", end)
		}
		m.expect(m.log("shared", "b"), "killed")
	}},
	{"an ephemeral container looks at another's processes", func(m *machine) {
		m.run("debugged", v1.RestartPolicyAlways, []v1.Container{script("app", "", func(c *v1.Container) { c.Command = []string{"sleep", "4244"} })})
		m.becomesReady("debugged")
		look := func(name, target string) v1.EphemeralContainer {
			return v1.EphemeralContainer{TargetContainerName: target, EphemeralContainerCommon: v1.EphemeralContainerCommon{
				Name: name, Image: testImage, ImagePullPolicy: v1.PullIfNotPresent, Command: []string{"sh", "-c", "ps | grep -c 'sleep 424[4]'; exit 7"}, TerminationMessagePolicy: v1.TerminationMessageReadFile,
			}}
		}
		pod := m.pod("debugged")
		pod.Spec.EphemeralContainers = []v1.EphemeralContainer{look("beside", ""), look("inside", "app"), look("lost", "none")}
		pod.Generation++
		must(m, m.client.Tracker().Update(v1.SchemeGroupVersion.WithResource("pods"), pod, "default"))
		pod = m.eventually("debugged", "both have ended", func(p *v1.Pod) bool {
			return statusOf(p, "beside").State.Terminated != nil && statusOf(p, "inside").State.Terminated != nil && statusOf(p, "lost").State.Waiting.Message != ""
		})
		m.expect(m.log("debugged", "beside"), "0")
		m.expect(m.log("debugged", "inside"), "1")
		if s := statusOf(pod, "inside"); s.State.Terminated.ExitCode != 7 || s.RestartCount != 0 || !isReady(pod) {
			m.Errorf("status %+v", pod.Status)
		}
		m.expect(statusOf(pod, "lost").State.Waiting.Message, `unable to find target container "none"`)
	}},
	{"mounts pass on, or are read-only through and through", func(m *machine) {
		dir := m.TempDir()
		must(m, mountTmpfs(dir))
		m.Cleanup(func() { must(m, unmount(dir)) })
		below := filepath.Join(dir, "below")
		must(m, os.Mkdir(below, 0o755))
		must(m, mountTmpfs(below))
		m.Cleanup(func() { must(m, unmount(below)) })
		must(m, os.Mkdir(filepath.Join(dir, "fromhost"), 0o755))
		must(m, os.Mkdir(filepath.Join(dir, "frompod"), 0o755))
		m.run("mounts", v1.RestartPolicyNever, []v1.Container{
			script("slave", "until [ -e /s/fromhost/seen ]; do usleep 20000; done; mount | grep -c ' /s/frompod '; touch /s/below/slave-done"),
			script("both", "mount -t tmpfs x /s/frompod && touch /s/frompod/here && until [ -e /s/below/go ]; do usleep 20000; done; umount /s/frompod", func(c *v1.Container) {
				c.SecurityContext = &v1.SecurityContext{Privileged: ref(true)}
			}),
			script("ro", "touch /s/x 2>/dev/null || echo denied; touch /s/below/x 2>/dev/null && echo written below"),
			script("rro", "touch /s/x 2>/dev/null || echo denied; touch /s/below/x 2>/dev/null || echo denied below"),
		}, folder(dir), func(s *v1.PodSpec) {
			s.Containers[0].VolumeMounts[0].MountPropagation = ref(v1.MountPropagationHostToContainer)
			s.Containers[1].VolumeMounts[0].MountPropagation = ref(v1.MountPropagationBidirectional)
			s.Containers[2].VolumeMounts[0].ReadOnly = true
			s.Containers[3].VolumeMounts[0].ReadOnly = true
			s.Containers[3].VolumeMounts[0].RecursiveReadOnly = ref(v1.RecursiveReadOnlyEnabled)
		})
		testenv.Eventually(m, 30*time.Second, func() bool { _, err := os.Stat(filepath.Join(dir, "frompod", "here")); return err == nil }, "the node sees what the pod mounts")
		must(m, mountTmpfs(filepath.Join(dir, "fromhost")))
		m.Cleanup(func() { must(m, unmount(filepath.Join(dir, "fromhost"))) })
		must(m, os.WriteFile(filepath.Join(dir, "fromhost", "seen"), nil, 0o644))
		testenv.Eventually(m, 30*time.Second, func() bool { _, err := os.Stat(filepath.Join(below, "slave-done")); return err == nil }, "the pod sees what the node mounts")
		must(m, os.WriteFile(filepath.Join(below, "go"), nil, 0o644))
		pod := m.ends("mounts", v1.PodSucceeded)
		m.expect(m.log("mounts", "slave"), "1")
		m.expect(m.log("mounts", "ro"), "denied\nwritten below")
		m.expect(m.log("mounts", "rro"), "denied\ndenied below")
		if s := statusOf(pod, "rro").VolumeMounts; len(s) != 1 || s[0].RecursiveReadOnly == nil || *s[0].RecursiveReadOnly != v1.RecursiveReadOnlyEnabled {
			m.Errorf("mounts in the status: %+v", s)
		}
		if s := statusOf(pod, "ro").VolumeMounts; len(s) != 1 || s[0].RecursiveReadOnly == nil || *s[0].RecursiveReadOnly != v1.RecursiveReadOnlyDisabled {
			m.Errorf("mounts in the status: %+v", s)
		}
	}},
}

func readlink(m *machine, ns string) string {
	target, err := os.Readlink("/proc/self/ns/" + ns)
	must(m, err)
	return target
}

func TestANewAgentGoesOnCounting(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.ready()
	// The third attempt stays.
	m.run("crash", v1.RestartPolicyOnFailure, []v1.Container{script("c", "echo x >> /s/log; case $(cat /s/log | tr -dc x) in x|xx) exit 1;; esac; sleep 1000")}, scratch)
	m.eventually("crash", "it is held back", func(p *v1.Pod) bool {
		w := statusOf(p, "c").State.Waiting
		return w != nil && w.Reason == "CrashLoopBackOff"
	})
	m.stop()
	m.start()
	m.eventually("crash", "it goes on where it was", func(p *v1.Pod) bool { return isReady(p) && statusOf(p, "c").RestartCount == 2 })
	for _, line := range m.eventsOf("crash") {
		if strings.HasPrefix(line, "Pulling") {
			t.Errorf("event %q", line)
		}
	}
	m.stop()
	// The runtime forgets its containers: only their logs tell of them.
	m.start()
	id := statusOf(m.pod("crash"), "c").ContainerID
	list, err := m.containers.ListContainers(context.Background(), nil)
	must(t, err)
	// The one that runs is the newest and goes last.
	for _, c := range slices.Backward(list) {
		must(t, m.containers.RemoveContainer(context.Background(), c.GetId()))
	}
	m.eventually("crash", "it counts on", func(p *v1.Pod) bool {
		s := statusOf(p, "c")
		return s.ContainerID != id && s.RestartCount == 3 && s.State.Running != nil
	})
	if _, err := os.Stat(filepath.Join(m.settings.PodLogsDir, "default_crash_uid-of-crash", "c", "3.log")); err != nil {
		t.Error(err)
	}
}
