package runtime_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/runtime"
)

// helperVariable makes the test binary a process that uses a runtime until it is killed.
const helperVariable = "SKIFF_RUNTIME_TEST_HELPER"

func TestMain(m *testing.M) {
	if spec := os.Getenv(helperVariable); spec != "" {
		if err := help(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// help opens the runtime that spec ("number:folder") names, says so, makes pods
// while it lives, and never ends by itself.
func help(spec string) error {
	number, dir, _ := strings.Cut(spec, ":")
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	d := &daemon{dir: dir}
	rt, err := runtime.New(context.Background(), killOptions(d, n))
	if err != nil {
		return err
	}
	if err := rt.SetPodCIDRs(context.Background(), podCIDR(n)); err != nil {
		return err
	}
	fmt.Println("ready")
	for i := 0; ; i++ {
		uid := fmt.Sprintf("helper-%d-%d", os.Getpid(), i)
		config := &runtimeapi.PodSandboxConfig{
			Metadata: &runtimeapi.PodSandboxMetadata{Name: uid, Uid: uid, Namespace: "default"}, Hostname: "helper", LogDirectory: dir + "/logs/" + uid,
			Linux: &runtimeapi.LinuxPodSandboxConfig{
				CgroupParent:    rt.Cgroups().PodParent(uid, "BestEffort"),
				SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}},
			},
		}
		pod, err := rt.RunPodSandbox(context.Background(), config, "")
		if err != nil {
			return err
		}
		id, err := rt.CreateContainer(context.Background(), pod, &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "short"}, Image: &runtimeapi.ImageSpec{Image: testImage}, Command: []string{"sleep", "1000"},
		}, config)
		if err != nil {
			return err
		}
		if err := rt.StartContainer(context.Background(), id); err != nil {
			return err
		}
		if i%2 == 1 {
			if err := rt.RemovePodSandbox(context.Background(), pod); err != nil {
				return err
			}
		}
	}
}

// killOptions keep the whole log, so that lines can be counted.
func killOptions(d *daemon, number int) runtime.Options {
	o := d.options(number)
	o.CgroupRoot = fmt.Sprintf("/skiff-runtime-test-kill-%s", filepath.Base(d.dir))
	o.LogMaxBytes, o.LogMaxFiles = 4<<20, 10000
	return o
}

func TestKilledProcessLosesNoLineAndLeavesNothing(t *testing.T) {
	testenv.RequireRoot(t)
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	for name, bin := range installs(t) {
		t.Run(name, func(t *testing.T) {
			const number = 150
			d := startContainerd(t, bin)
			h := &harness{T: t, d: d, number: number}
			open := func() {
				var err error
				h.rt, err = runtime.New(h.ctx(), killOptions(d, number))
				h.must(err)
				h.must(h.rt.SetPodCIDRs(h.ctx(), podCIDR(number)))
			}
			open()
			t.Cleanup(func() {
				_ = h.rt.Close() // it may be closed already
				h.must(runtime.Cleanup(h.ctx(), killOptions(d, number)))
				if n := shims(h); n > 0 {
					t.Errorf("%d shims are left behind", n)
				}
			})
			pod, config := h.runPod()
			// A fast writer on both streams, and a slow one whose lines come in pieces.
			fast := h.start(pod, config, h.containerConfig("fast", "i=0; while :; do echo line $i; i=$((i+1)); done & i=0; while :; do echo line $i >&2; i=$((i+1)); done"))
			slow := h.start(pod, config, h.containerConfig("slow", "i=0; while :; do printf line; usleep 3000; echo \" $i\"; i=$((i+1)); done"))
			h.must(h.rt.Close())

			for range 15 {
				runAndKill(t, d, number, time.Duration(20+rand.IntN(400))*time.Millisecond)
			}
			open()
			for _, id := range []string{fast, slow} {
				if h.status(id).GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
					t.Errorf("a container did not survive: %v", h.status(id))
				}
				h.must(h.rt.StopContainer(h.ctx(), id, 0))
				counted := 0
				for _, stream := range []string{"stdout", "stderr"} {
					counted += checkStream(h, id, stream)
				}
				t.Logf("%d lines", counted)
				if counted == 0 {
					t.Error("nothing was logged")
				}
			}
		})
	}
}

// runAndKill lets a process use the runtime for a while, and kills it.
func runAndKill(t *testing.T, d *daemon, number int, life time.Duration) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d:%s", helperVariable, number, d.dir))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("helper said %q: %v", line, err)
	}
	timer := time.NewTimer(life)
	<-timer.C
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait()
}

// checkStream proves that the lines of a stream are counted without a gap and
// without repetition through all files of the log, and returns how many there are.
func checkStream(h *harness, id, stream string) int {
	h.Helper()
	path := h.status(id).GetLogPath()
	files, err := filepath.Glob(path + ".*")
	h.must(err)
	slices.Sort(files)
	next, part := 0, ""
	for _, file := range append(files, path) {
		f, err := os.Open(file)
		h.must(err)
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			fields := strings.SplitN(lines.Text(), " ", 4)
			if len(fields) != 4 {
				h.Fatalf("%s: record %q is broken", file, lines.Text())
			}
			if fields[1] != stream {
				continue
			}
			part += fields[3]
			if fields[2] == "P" {
				continue
			}
			if part != fmt.Sprintf("line %d", next) {
				h.Fatalf("%s: %s line %d is %q", file, stream, next, part)
			}
			next, part = next+1, ""
		}
		h.must(lines.Err())
	}
	return next
}
