package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/runtime"
)

// scenario is one promise of the runtime, checked against every containerd there is.
type scenario struct {
	name  string
	check func(*harness)
}

// harness is one runtime on one containerd.
type harness struct {
	*testing.T
	d      *daemon
	number int
	rt     *runtime.Runtime
	pods   int
}

func TestRuntime(t *testing.T) {
	testenv.RequireRoot(t)
	found := installs(t)
	if len(found) == 0 {
		t.Skip("needs containerd: install it, or name a folder with its programs in SKIFF_TEST_CONTAINERD")
	}
	number := 0
	for name, bin := range found {
		t.Run(name, func(t *testing.T) {
			d := startContainerd(t, bin)
			for _, s := range scenarios {
				number++
				t.Run(s.name, func(t *testing.T) {
					h := &harness{T: t, d: d, number: number}
					h.open()
					t.Cleanup(h.cleanUp)
					s.check(h)
				})
			}
		})
	}
}

func (h *harness) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	h.Cleanup(cancel)
	return ctx
}

func (h *harness) open() {
	h.Helper()
	rt, err := runtime.New(h.ctx(), h.d.options(h.number))
	h.must(err)
	h.rt = rt
	h.must(rt.SetPodCIDRs(h.ctx(), podCIDR(h.number)))
	go func() {
		for range rt.Events() {
		}
	}()
}

// cleanUp removes everything and proves that nothing is left.
func (h *harness) cleanUp() {
	h.must(h.rt.Close())
	h.must(runtime.Cleanup(h.ctx(), h.d.options(h.number)))
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	h.must(err)
	if strings.Contains(string(mounts), h.d.options(h.number).RunDir) {
		h.Error("mounts are left behind")
	}
	if _, err := os.Stat("/sys/class/net/" + h.d.options(h.number).Network.Bridge); err == nil {
		h.Error("the bridge is left behind")
	}
	if dirs, err := filepath.Glob("/sys/fs/cgroup/*" + h.d.options(h.number).CgroupRoot); err != nil || len(dirs) > 0 {
		h.Errorf("cgroups are left behind: %v %v", dirs, err)
	}
}

func (h *harness) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *harness) sandboxConfig(change ...func(*runtimeapi.PodSandboxConfig)) *runtimeapi.PodSandboxConfig {
	h.pods++
	uid := fmt.Sprintf("uid-%d-%d", h.number, h.pods)
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: fmt.Sprintf("pod%d", h.pods), Uid: uid, Namespace: "default"},
		Hostname:     fmt.Sprintf("pod%d", h.pods),
		LogDirectory: filepath.Join(h.d.dir, "logs", uid),
		DnsConfig:    &runtimeapi.DNSConfig{Servers: []string{"10.96.0.10"}, Searches: []string{"default.svc.cluster.local"}, Options: []string{"ndots:5"}},
		Labels:       map[string]string{"app": "test"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: h.rt.Cgroups().PodParent(uid, "Burstable"),
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
			},
		},
	}
	for _, f := range change {
		f(config)
	}
	return config
}

func (h *harness) runPod(change ...func(*runtimeapi.PodSandboxConfig)) (string, *runtimeapi.PodSandboxConfig) {
	h.Helper()
	config := h.sandboxConfig(change...)
	id, err := h.rt.RunPodSandbox(h.ctx(), config, "")
	h.must(err)
	return id, config
}

func (h *harness) containerConfig(name, script string, change ...func(*runtimeapi.ContainerConfig)) *runtimeapi.ContainerConfig {
	config := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: testImage},
		Command:  []string{"sh", "-c", script},
		Labels:   map[string]string{"io.kubernetes.container.name": name},
		LogPath:  name + "/0.log",
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
			Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
		}},
	}
	for _, f := range change {
		f(config)
	}
	return config
}

func (h *harness) create(pod string, sandbox *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) string {
	h.Helper()
	id, err := h.rt.CreateContainer(h.ctx(), pod, config, sandbox)
	h.must(err)
	return id
}

func (h *harness) start(pod string, sandbox *runtimeapi.PodSandboxConfig, config *runtimeapi.ContainerConfig) string {
	h.Helper()
	id := h.create(pod, sandbox, config)
	h.must(h.rt.StartContainer(h.ctx(), id))
	return id
}

func (h *harness) status(id string) *runtimeapi.ContainerStatus {
	h.Helper()
	response, err := h.rt.ContainerStatus(h.ctx(), id, false)
	h.must(err)
	return response.GetStatus()
}

func (h *harness) waitExited(id string) *runtimeapi.ContainerStatus {
	h.Helper()
	testenv.Eventually(h, 20*time.Second, func() bool { return h.status(id).GetState() == runtimeapi.ContainerState_CONTAINER_EXITED }, "container %s has exited", id)
	return h.status(id)
}

// output is what a script prints in a container of its own.
func (h *harness) output(pod string, sandbox *runtimeapi.PodSandboxConfig, name, script string, change ...func(*runtimeapi.ContainerConfig)) string {
	h.Helper()
	id := h.start(pod, sandbox, h.containerConfig(name, script, change...))
	h.waitExited(id)
	return h.log(id)
}

// log is the text of a container's log, without its prefixes.
func (h *harness) log(id string) string {
	h.Helper()
	raw, err := os.ReadFile(h.status(id).GetLogPath())
	h.must(err)
	var b strings.Builder
	for line := range strings.Lines(string(raw)) {
		parts := strings.SplitN(line, " ", 4)
		if len(parts) != 4 {
			h.Fatalf("log line %q is not in the CRI format", line)
		}
		if parts[2] == "P" {
			b.WriteString(strings.TrimSuffix(parts[3], "\n"))
		} else {
			b.WriteString(parts[3])
		}
	}
	return b.String()
}

func (h *harness) expect(got, want string) {
	h.Helper()
	if strings.TrimSpace(got) != strings.TrimSpace(want) {
		h.Errorf("got %q, want %q", got, want)
	}
}

func (h *harness) exec(id string, cmd ...string) string {
	h.Helper()
	out, errs, err := h.rt.ExecSync(h.ctx(), id, cmd, 10*time.Second)
	if err != nil {
		h.Fatalf("exec %q: %v: %s", cmd, err, errs)
	}
	return string(out)
}

var scenarios = []scenario{
	{"a container runs, logs, exits and is removed", func(h *harness) {
		pod, config := h.runPod()
		id := h.start(pod, config, h.containerConfig("main", "echo to stdout; echo to stderr >&2; exit 3"))
		s := h.waitExited(id)
		if s.GetExitCode() != 3 || s.GetReason() != "Error" || s.GetFinishedAt() < s.GetStartedAt() || s.GetStartedAt() < s.GetCreatedAt() {
			h.Errorf("status: %v", s)
		}
		raw, err := os.ReadFile(s.GetLogPath())
		h.must(err)
		if !strings.Contains(string(raw), " stdout F to stdout\n") || !strings.Contains(string(raw), " stderr F to stderr\n") {
			h.Errorf("log: %s", raw)
		}
		h.must(h.rt.RemoveContainer(h.ctx(), id))
		h.must(h.rt.RemoveContainer(h.ctx(), id))
		if _, err := h.rt.ContainerStatus(h.ctx(), id, false); !errors.Is(err, runtime.ErrNotFound) {
			h.Errorf("status of a removed container: %v", err)
		}
		h.must(h.rt.StopPodSandbox(h.ctx(), pod))
		h.must(h.rt.StopPodSandbox(h.ctx(), pod))
		h.must(h.rt.RemovePodSandbox(h.ctx(), pod))
		h.must(h.rt.RemovePodSandbox(h.ctx(), pod))
	}},
	{"containers of a pod share host name, network and IPC and one shim", func(h *harness) {
		pod, config := h.runPod()
		a := h.start(pod, config, h.containerConfig("a", "sleep 1000"))
		b := h.start(pod, config, h.containerConfig("b", "sleep 1000"))
		h.expect(h.exec(a, "hostname"), "pod1")
		for _, ns := range []string{"net", "ipc", "uts"} {
			h.expect(h.exec(a, "ls", "-l", "/proc/self/ns/"+ns)[60:], h.exec(b, "ls", "-l", "/proc/self/ns/"+ns)[60:])
		}
		h.expect(h.exec(a, "cat", "/etc/resolv.conf"), "search default.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n")
		h.expect(h.exec(a, "cat", "/etc/hostname"), "pod1")
		if shm := h.exec(a, "grep", "/dev/shm", "/proc/mounts"); !strings.Contains(shm, "size=65536k") {
			h.Errorf("/dev/shm: %s", shm)
		}
		h.expect(h.exec(b, "ls", "/proc/1/"), h.exec(b, "ls", "/proc/1/")) // its own process is number one
		if n := shims(h); n != 1 {
			h.Errorf("%d shims serve the pod", n)
		}
		h.must(h.rt.RemoveContainer(h.ctx(), a))
		h.expect(h.exec(b, "hostname"), "pod1")
	}},
	{"pods reach each other, the machine reaches them, and addresses are given back", func(h *harness) {
		podA, configA := h.runPod()
		podB, configB := h.runPod()
		a := h.start(podA, configA, h.containerConfig("a", "echo hello > /tmp/index.html; httpd -f -p 8080 -h /tmp"))
		b := h.start(podB, configB, h.containerConfig("b", "sleep 1000"))
		status, err := h.rt.PodSandboxStatus(h.ctx(), podA, false)
		h.must(err)
		ip := status.GetStatus().GetNetwork().GetIp()
		h.expect(h.exec(b, "wget", "-qO-", "http://"+ip+":8080/"), "hello")
		var stream pipeEnd
		stream.in = strings.NewReader("GET / HTTP/1.0\r\n\r\n")
		h.must(h.rt.PortForward(h.ctx(), podA, 8080, &stream))
		if !strings.Contains(stream.String(), "hello") {
			h.Errorf("port-forward: %q", stream.String())
		}
		if err := h.rt.PortForward(h.ctx(), podA, 8081, &pipeEnd{in: strings.NewReader("")}); err == nil {
			h.Error("port-forward to a closed port succeeded")
		}
		if used := h.usage(a); used.Traffic == nil || used.Traffic.RxBytes == 0 || used.Traffic.RxPackets == 0 {
			h.Errorf("no traffic was counted: %+v", used.Traffic)
		}
	}},
	{"exec passes streams, exit codes and time limits", func(h *harness) {
		pod, config := h.runPod()
		id := h.start(pod, config, h.containerConfig("main", "sleep 1000"))
		var exit utilexec.ExitError
		if _, errs, err := h.rt.ExecSync(h.ctx(), id, []string{"sh", "-c", "echo oops >&2; exit 7"}, 0); !errors.As(err, &exit) || exit.ExitStatus() != 7 || string(errs) != "oops\n" {
			h.Errorf("exit code: %v, stderr %q", err, errs)
		}
		if _, _, err := h.rt.ExecSync(h.ctx(), id, []string{"sleep", "100"}, 300*time.Millisecond); !errors.Is(err, runtime.ErrExecTimeout) {
			h.Errorf("time limit: %v", err)
		}
		if strings.Contains(h.exec(id, "ps"), "sleep 100\n") {
			h.Error("a command outlives its time limit")
		}
		if _, _, err := h.rt.ExecSync(h.ctx(), id, []string{"/no/such/program"}, 0); err == nil || !strings.Contains(err.Error(), "no such file") {
			h.Errorf("a missing program: %v", err)
		}
		out := &buffer{}
		h.must(h.rt.Exec(h.ctx(), id, []string{"cat"}, strings.NewReader("through cat"), out, nil, false, nil))
		h.expect(out.String(), "through cat")
		big := strings.Repeat("0123456789abcdef", 64*1024)
		out = &buffer{}
		h.must(h.rt.Exec(h.ctx(), id, []string{"cat"}, strings.NewReader(big), out, nil, false, nil))
		if out.String() != big {
			h.Errorf("of %d bytes came back %d", len(big), len(out.String()))
		}
		sizes := make(chan remotecommand.TerminalSize, 1)
		sizes <- remotecommand.TerminalSize{Width: 111, Height: 33}
		out = &buffer{}
		h.must(h.rt.Exec(h.ctx(), id, []string{"sh", "-c", "while [ \"$(stty size 2>/dev/null)\" != '33 111' ]; do usleep 10000; done; stty size"}, nil, out, nil, true, sizes))
		h.expect(out.String(), "33 111")
		if err := h.rt.Exec(h.ctx(), id, []string{"true"}, nil, nil, nil, false, nil); err != nil {
			h.Error(err)
		}
	}},
	{"attach joins output and input", func(h *harness) {
		pod, config := h.runPod()
		id := h.start(pod, config, h.containerConfig("main", "while read line; do echo got $line; done; echo end", func(c *runtimeapi.ContainerConfig) {
			c.Stdin, c.StdinOnce = true, true
		}))
		in, write := io.Pipe()
		first, second := &buffer{}, &buffer{}
		var wg sync.WaitGroup
		wg.Go(func() { _ = h.rt.Attach(h.ctx(), id, nil, second, nil, false, nil) })
		wg.Go(func() { _ = h.rt.Attach(h.ctx(), id, in, first, nil, false, nil) })
		_, err := write.Write([]byte("one\n"))
		h.must(err)
		testenv.Eventually(h, 10*time.Second, func() bool { return strings.Contains(first.String(), "got one") }, "the client sees the answer")
		_, err = write.Write([]byte("two\n"))
		h.must(err)
		write.Close()
		wg.Wait()
		if !strings.HasSuffix(first.String(), "got two\nend\n") || !strings.HasSuffix(second.String(), "got two\nend\n") {
			h.Errorf("first saw %q, second %q", first.String(), second.String())
		}
		h.waitExited(id)
		h.expect(h.log(id), "got one\ngot two\nend")
	}},
	{"a terminal's output is logged", func(h *harness) {
		pod, config := h.runPod()
		got := h.output(pod, config, "main", "test -t 1 && echo terminal; echo $TERM", func(c *runtimeapi.ContainerConfig) { c.Tty = true })
		h.expect(got, "terminal\r\nxterm")
	}},
	{"a container gets its user, environment, folder and limits", func(h *harness) {
		pod, config := h.runPod()
		h.expect(h.output(pod, config, "root", "id; pwd; echo $FROM_IMAGE $HOSTNAME $OWN", func(c *runtimeapi.ContainerConfig) {
			c.Envs = []*runtimeapi.KeyValue{{Key: "OWN", Value: []byte("mine")}}
		}), "uid=0(root) gid=0(root) groups=0(root),10(wheel)\n/root\nyes pod1 mine")
		h.expect(h.output(pod, config, "named", "id", func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUsername = "skipper"
			c.Linux.SecurityContext.SupplementalGroups = []int64{3000}
		}), "uid=1000(skipper) gid=1000(skipper) groups=1000(skipper),2000(crew),3000")
		h.expect(h.output(pod, config, "number", "id; touch /x 2>/dev/null || echo denied", func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: 4711}
			c.Linux.SecurityContext.RunAsGroup = &runtimeapi.Int64Value{Value: 12}
			c.WorkingDir = "/tmp"
		}), "uid=4711 gid=12 groups=12\ndenied")
		limited := h.start(pod, config, h.containerConfig("limited", "sleep 1000", func(c *runtimeapi.ContainerConfig) {
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{CpuShares: 512, CpuQuota: 20000, CpuPeriod: 100000, MemoryLimitInBytes: 64 << 20, OomScoreAdj: -998}
			c.Linux.SecurityContext.ReadonlyRootfs = true
			c.Linux.SecurityContext.NoNewPrivs = true
			c.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"NET_BIND_SERVICE"}}
		}))
		if got := h.exec(limited, "sh", "-c", "touch /x 2>&1; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status"); !strings.Contains(got, "Read-only file system") ||
			!strings.Contains(got, "CapEff:\t0000000000000400") || !strings.Contains(got, "NoNewPrivs:\t1") || !strings.Contains(got, "Seccomp:\t2") {
			h.Error(got)
		}
		if used := h.usage(limited).Containers[0]; used.MemoryLimit != 64<<20 || used.WorkingSet == 0 || used.CPUNanoseconds == 0 || used.CPUQuota != 20000 || used.CPUPeriod != 100000 ||
			used.CPUShares != 512 || used.Threads != 1 || used.Layer.At.IsZero() || used.Layer.Inodes == 0 {
			h.Errorf("usage: %+v", used)
		}
		h.must(h.rt.UpdateContainerResources(h.ctx(), limited, &runtimeapi.ContainerResources{Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 128 << 20}}))
		if got := h.status(limited).GetResources().GetLinux(); got.GetMemoryLimitInBytes() != 128<<20 || got.GetCpuShares() != 512 {
			h.Errorf("resources: %v", got)
		}
	}},
	{"a container over its memory limit is OOMKilled", func(h *harness) {
		pod, config := h.runPod()
		id := h.start(pod, config, h.containerConfig("main", "dd if=/dev/zero of=/dev/null bs=100M", func(c *runtimeapi.ContainerConfig) {
			c.Command = []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=100M"}
			c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 16 << 20}
		}))
		if s := h.waitExited(id); s.GetReason() != "OOMKilled" || s.GetExitCode() != 137 {
			h.Errorf("status: %v", s)
		}
	}},
	{"a program that is missing is a StartError", func(h *harness) {
		pod, config := h.runPod()
		id := h.create(pod, config, h.containerConfig("main", "", func(c *runtimeapi.ContainerConfig) { c.Command = []string{"/no/such"} }))
		err := h.rt.StartContainer(h.ctx(), id)
		if err == nil || !strings.Contains(err.Error(), "/no/such") {
			h.Errorf("start: %v", err)
		}
		if s := h.status(id); s.GetReason() != "StartError" || s.GetExitCode() != 128 || s.GetMessage() != err.Error() {
			h.Errorf("status: %v", s)
		}
		// The pod can try again.
		h.expect(h.output(pod, config, "again", "echo ok"), "ok")
	}},
	{"containers start right after one another, as init containers do", func(h *harness) {
		pod, config := h.runPod()
		for i := range 12 {
			id := h.create(pod, config, h.containerConfig(fmt.Sprintf("c%d", i), "true"))
			h.must(h.rt.StartContainer(h.ctx(), id))
			if s := h.waitExited(id); s.GetReason() != "Completed" {
				h.Fatalf("status: %v", s)
			}
			if i%3 == 0 {
				h.must(h.rt.RemoveContainer(h.ctx(), id))
			}
		}
	}},
	{"stop asks, waits and kills", func(h *harness) {
		pod, config := h.runPod()
		polite := h.start(pod, config, h.containerConfig("polite", "trap 'echo bye; exit 0' TERM; echo up; while :; do usleep 10000; done"))
		stubborn := h.start(pod, config, h.containerConfig("stubborn", "trap '' TERM; echo up; while :; do usleep 100000; done"))
		for _, id := range []string{polite, stubborn} {
			testenv.Eventually(h, 10*time.Second, func() bool { return strings.Contains(h.log(id), "up") }, "the trap is set")
		}
		h.must(h.rt.StopContainer(h.ctx(), polite, 10))
		if s := h.status(polite); s.GetExitCode() != 0 || s.GetReason() != "Completed" {
			h.Errorf("polite: %v", s)
		}
		h.expect(h.log(polite), "up\nbye")
		h.must(h.rt.StopContainer(h.ctx(), stubborn, 1))
		if s := h.status(stubborn); s.GetExitCode() != 137 {
			h.Errorf("stubborn: %v", s)
		}
	}},
	{"a shared PID namespace shows the other containers and reaps orphans", func(h *harness) {
		shared := func(o *runtimeapi.NamespaceOption) { o.Pid = runtimeapi.NamespaceMode_POD }
		pod, config := h.runPod(func(c *runtimeapi.PodSandboxConfig) { shared(c.Linux.SecurityContext.NamespaceOptions) })
		change := func(c *runtimeapi.ContainerConfig) { shared(c.Linux.SecurityContext.NamespaceOptions) }
		h.start(pod, config, h.containerConfig("a", "sleep 4242", change))
		b := h.start(pod, config, h.containerConfig("b", "sh -c 'sleep 0.05 &'; sleep 1000", change))
		if got := h.exec(b, "ps"); !strings.Contains(got, "sleep 4242") || !strings.Contains(got, "/init") {
			h.Error(got)
		}
		testenv.Eventually(h, 5*time.Second, func() bool { return !strings.Contains(h.exec(b, "ps"), "[sleep]") }, "the orphan is reaped")
		if n := shims(h); n != 1 {
			h.Errorf("%d shims serve the pod", n)
		}
	}},
	{"host namespaces are the machine's", func(h *harness) {
		host := func(o *runtimeapi.NamespaceOption) {
			o.Network, o.Pid, o.Ipc = runtimeapi.NamespaceMode_NODE, runtimeapi.NamespaceMode_NODE, runtimeapi.NamespaceMode_NODE
		}
		pod, config := h.runPod(func(c *runtimeapi.PodSandboxConfig) {
			host(c.Linux.SecurityContext.NamespaceOptions)
			c.DnsConfig = nil
		})
		id := h.start(pod, config, h.containerConfig("main", "sleep 1000", func(c *runtimeapi.ContainerConfig) {
			host(c.Linux.SecurityContext.NamespaceOptions)
			c.Linux.SecurityContext.Privileged = true
		}))
		for _, ns := range []string{"net", "ipc", "uts", "pid"} {
			want, err := os.Readlink("/proc/self/ns/" + ns)
			h.must(err)
			if got := h.exec(id, "ls", "-l", "/proc/self/ns/"+ns); !strings.Contains(got, want) {
				h.Errorf("%s: %s is not %s", ns, got, want)
			}
		}
	}},
	{"a pod may have users of its own", func(h *harness) {
		own := func(o *runtimeapi.NamespaceOption) {
			o.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD}
		}
		pod, config := h.runPod(func(c *runtimeapi.PodSandboxConfig) {
			own(c.Linux.SecurityContext.NamespaceOptions)
			c.Linux.Sysctls = map[string]string{"net.ipv4.ip_local_port_range": "2000 3000", "kernel.shm_rmid_forced": "1"}
		})
		dir := h.TempDir()
		h.must(os.Chmod(dir, 0o750))
		h.must(os.WriteFile(filepath.Join(dir, "given"), []byte("text"), 0o600))
		id := h.start(pod, config, h.containerConfig("main", "sleep 1000", func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/data", HostPath: dir}}
		}))
		// Outside it is nobody special.
		status, err := os.ReadFile("/proc/" + pidOf(h, id) + "/status")
		h.must(err)
		uid := ""
		for line := range strings.Lines(string(status)) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Uid:" {
				uid = fields[1]
			}
		}
		if uid == "0" || !strings.Contains(h.exec(id, "cat", "/proc/self/uid_map"), uid) {
			h.Errorf("outside its user is %q, inside it says %q", uid, h.exec(id, "cat", "/proc/self/uid_map"))
		}
		h.expect(h.exec(id, "sh", "-c", "id -u; hostname; cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced; stat -c '%u %g' / /bin/busybox /data /data/given /etc/hosts /dev/shm; cat /data/given; echo more > /data/made && touch /root/x /dev/shm/x && stat -c %u /root/x"),
			"0\npod1\n2000\t3000\n1\n0 0\n0 0\n0 0\n0 0\n0 0\n0 0\ntext0")
		info, err := os.Stat(filepath.Join(dir, "made"))
		h.must(err)
		if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 0 {
			h.Errorf("on the disk the file belongs to %d", owner.Uid)
		}
		h.expect(h.output(pod, config, "user", "id -u; stat -c %u /bin/busybox", func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: 1000}
		}), "1000\n0")
		// Another pod has other users, also after a restart of this process.
		h.must(h.rt.Close())
		h.open()
		other, otherConfig := h.runPod(func(c *runtimeapi.PodSandboxConfig) { own(c.Linux.SecurityContext.NamespaceOptions) })
		if got := h.output(other, otherConfig, "main", "cat /proc/self/uid_map"); len(strings.Fields(got)) != 3 || strings.Fields(got)[1] == uid {
			h.Errorf("two pods have the same users: %s", got)
		}
		h.expect(h.output(pod, config, "again", "id -u"), "0")
		shared, sharedConfig := h.runPod(func(c *runtimeapi.PodSandboxConfig) {
			own(c.Linux.SecurityContext.NamespaceOptions)
			c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
		})
		if got := h.output(shared, sharedConfig, "main", "ps", func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
		}); !strings.Contains(got, "/init") {
			h.Errorf("processes: %s", got)
		}
		if _, err := h.rt.RunPodSandbox(h.ctx(), h.sandboxConfig(func(c *runtimeapi.PodSandboxConfig) {
			own(c.Linux.SecurityContext.NamespaceOptions)
			c.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
		}), ""); err == nil || !strings.Contains(err.Error(), "hostUsers") {
			h.Errorf("with the node's network: %v", err)
		}
	}},
	{"kernel settings are the pod's own", func(h *harness) {
		pod, config := h.runPod(func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.Sysctls = map[string]string{"net.ipv4.ip_local_port_range": "2000 3000", "kernel.shm_rmid_forced": "1"}
		})
		h.expect(h.output(pod, config, "main", "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced"), "2000\t3000\n1")
	}},
	{"mounts are read-only or writable as asked", func(h *harness) {
		pod, config := h.runPod()
		dir := h.TempDir()
		got := h.output(pod, config, "main", "echo x > /rw/x; { echo x > /ro/x; } 2>/dev/null || echo denied; cat /ro/x", func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/rw", HostPath: dir}, {ContainerPath: "/ro", HostPath: dir, Readonly: true, RecursiveReadOnly: true}}
		})
		h.expect(got, "denied\nx")
	}},
	{"a host port is forwarded to the pod", func(h *harness) {
		pod, config := h.runPod(func(c *runtimeapi.PodSandboxConfig) {
			c.PortMappings = []*runtimeapi.PortMapping{{Protocol: runtimeapi.Protocol_TCP, HostPort: 23456, ContainerPort: 8080}}
		})
		id := h.start(pod, config, h.containerConfig("main", "echo port > /tmp/index.html; httpd -f -p 8080 -h /tmp"))
		other, otherConfig := h.runPod()
		gateway := podCIDR(h.number)[0].Addr().Next().String()
		h.expect(h.output(other, otherConfig, "client", "wget -qO- http://"+gateway+":23456/"), "port")
		h.expect(h.exec(id, "wget", "-qO-", "http://"+gateway+":23456/"), "port")
		h.expect(httpGet(h, "http://127.0.0.1:23456/"), "port")
	}},
	{"images are found, listed and removed", func(h *harness) {
		for _, ref := range []string{testImage, "busybox:test"} {
			status, err := h.rt.ImageStatus(h.ctx(), &runtimeapi.ImageSpec{Image: ref}, false)
			h.must(err)
			if i := status.GetImage(); i.GetUid().GetValue() != 0 || i.GetSize() == 0 || len(i.GetRepoTags()) == 0 || !strings.HasPrefix(i.GetId(), "sha256:") {
				h.Errorf("%s: %v", ref, i)
			}
		}
		list, err := h.rt.ListImages(h.ctx(), nil)
		h.must(err)
		if len(list) == 0 {
			h.Error("no image is listed")
		}
		missing, err := h.rt.ImageStatus(h.ctx(), &runtimeapi.ImageSpec{Image: "nothing:here"}, false)
		if err != nil || missing.GetImage() != nil {
			h.Errorf("missing image: %v, %v", missing, err)
		}
		h.must(h.rt.RemoveImage(h.ctx(), &runtimeapi.ImageSpec{Image: "nothing:here"}))
		if _, err := h.rt.PullImage(h.ctx(), &runtimeapi.ImageSpec{Image: "127.0.0.1:1/nothing:here"}, nil, nil); err == nil || !strings.Contains(err.Error(), "failed to resolve reference") {
			h.Errorf("pull from nowhere: %v", err)
		}
		if _, err := h.rt.PullImage(h.ctx(), &runtimeapi.ImageSpec{Image: "NOT A NAME"}, nil, nil); err == nil {
			h.Error("a wrong name was pulled")
		}
		info, err := h.rt.ImageFsInfo(h.ctx())
		h.must(err)
		if fs := info.GetImageFilesystems()[0]; fs.GetUsedBytes().GetValue() == 0 || !strings.HasPrefix(fs.GetFsId().GetMountpoint(), h.d.dir) {
			h.Errorf("image file system: %v", fs)
		}
	}},
	{"a restarted process finds everything again", func(h *harness) {
		pod, config := h.runPod(func(c *runtimeapi.PodSandboxConfig) { c.Annotations = map[string]string{"kept": "yes"} })
		running := h.start(pod, config, h.containerConfig("running", "i=0; while :; do echo line $i; i=$((i+1)); usleep 1000; done", func(c *runtimeapi.ContainerConfig) {
			c.Annotations = map[string]string{"kept": "too"}
		}))
		dying := h.start(pod, config, h.containerConfig("dying", "while [ ! -e /tmp/go ]; do usleep 10000; done; exit 5"))
		created := h.create(pod, config, h.containerConfig("created", "echo created"))
		before := h.status(running)
		h.exec(dying, "true")
		h.must(h.rt.Close())
		// It ends while nobody looks.
		h.must(os.WriteFile(fmt.Sprintf("/proc/%s/root/tmp/go", pidOf(h, dying)), nil, 0o644))
		h.open()
		if s := h.waitExited(dying); s.GetExitCode() != 5 || s.GetReason() != "Error" {
			h.Errorf("dying: %v", s)
		}
		after := h.status(running)
		if after.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING || after.GetStartedAt() != before.GetStartedAt() || after.GetAnnotations()["kept"] != "too" ||
			after.GetImageId() != before.GetImageId() || after.GetCreatedAt() != before.GetCreatedAt() {
			h.Errorf("before %v, after %v", before, after)
		}
		list, err := h.rt.ListPodSandbox(h.ctx(), &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"app": "test"}})
		h.must(err)
		if len(list) != 1 || list[0].GetState() != runtimeapi.PodSandboxState_SANDBOX_READY || list[0].GetAnnotations()["kept"] != "yes" {
			h.Errorf("sandboxes: %v", list)
		}
		h.must(h.rt.StartContainer(h.ctx(), created))
		h.waitExited(created)
		h.expect(h.log(created), "created")
		h.exec(running, "true")
		h.must(h.rt.StopContainer(h.ctx(), running, 0))
		checkCounted(h, h.log(running))
	}},
	{"containerd restarted is found again", func(h *harness) {
		pod, config := h.runPod()
		id := h.start(pod, config, h.containerConfig("main", "while [ ! -e /tmp/go ]; do usleep 10000; done; exit 6"))
		pid := pidOf(h, id)
		h.d.kill()
		h.must(os.WriteFile(fmt.Sprintf("/proc/%s/root/tmp/go", pid), nil, 0o644))
		testenv.Eventually(h, 10*time.Second, func() bool { return !ready(h) }, "the loss is noticed")
		h.d.start()
		// containerd 1.6 tells the exit code afterwards; later ones have forgotten it.
		if s := h.waitExited(id); s.GetExitCode() != 6 && s.GetReason() != "Unknown" {
			h.Errorf("status: %v", s)
		}
		testenv.Eventually(h, 10*time.Second, func() bool { return ready(h) }, "the connection is back")
		h.expect(h.output(pod, config, "again", "echo ok"), "ok")
	}},
}

func ready(h *harness) bool {
	status, err := h.rt.Status(h.ctx(), false)
	h.must(err)
	return status.GetStatus().GetConditions()[0].GetStatus()
}

// checkCounted proves that "line N" follows "line N-1" from 0 on.
func checkCounted(h *harness, log string) {
	h.Helper()
	next := 0
	for line := range strings.Lines(log) {
		if !strings.HasSuffix(line, "\n") {
			break // killed in the middle of a line
		}
		if line != fmt.Sprintf("line %d\n", next) {
			h.Fatalf("line %d is %q", next, line)
		}
		next++
	}
	if next == 0 {
		h.Error("nothing was logged")
	}
}

// buffer is a stream's end that many goroutines may look at.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) Close() error { return nil }

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// pipeEnd is both directions of a forwarded port.
type pipeEnd struct {
	buffer
	in io.Reader
}

func (p *pipeEnd) Read(b []byte) (int, error) { return p.in.Read(b) }
