package testenv_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
)

// holder is set for the child process that takes names and is killed.
const holder = "SKIFF_TEST_HOLDER"

func traces(name string) testenv.Traces {
	return testenv.Traces{Dir: filepath.Join(os.TempDir(), "skiff-test-"+name), Cgroup: "/" + name, Namespace: name}
}

func TestMain(m *testing.M) {
	if base := os.Getenv(holder); base != "" {
		name, _, err := testenv.Hold(base, traces)
		fmt.Println(name, err)
		time.Sleep(time.Hour)
	}
	os.Exit(m.Run())
}

func TestAKilledRunIsClearedAndARunningOneIsLeftAlone(t *testing.T) {
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "ip", "nsenter", "sleep")
	base := fmt.Sprintf("skiff-traces-%d", os.Getpid())
	first, runs := hold(t, base)
	second, killed := hold(t, base)
	if first != base || second != base+"-2" {
		t.Fatalf("names %q and %q", first, second)
	}
	sleepers := []*exec.Cmd{leave(t, first), leave(t, second)}
	killed()

	name := testenv.Claim(t, base, traces)
	if name != second {
		t.Errorf("claimed %s, want %s", name, second)
	}
	if err := sleepers[1].Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the process of a killed run: %v", err)
	}
	for _, path := range present(second) {
		t.Errorf("left behind: %s", path)
	}
	if got := present(first); len(got) < 3 || sleepers[0].Process.Signal(syscall.Signal(0)) != nil {
		t.Errorf("the run that goes on has only %v", got)
	}
	runs()
	if err := traces(first).Remove(); err != nil {
		t.Error(err)
	}
	_ = sleepers[0].Wait()
}

func TestTheFileOfANamespaceThatARestartTookIsRemoved(t *testing.T) {
	testenv.RequireRoot(t)
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("skiff-stale-%d", os.Getpid())
	if err := os.WriteFile(filepath.Join("/run/netns", name), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := traces(name).Remove(); err != nil {
		t.Fatal(err)
	}
	if left := present(name); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// hold has a process hold a name until end is called.
func hold(t *testing.T, base string) (name string, end func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self)
	child.Env = append(os.Environ(), holder+"="+base)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}
	t.Cleanup(end)
	line, err := bufio.NewReader(out).ReadString('\n')
	name, problem, _ := strings.Cut(strings.TrimSpace(line), " ")
	if err != nil || problem != "<nil>" {
		t.Fatalf("hold a name: %q %v", line, err)
	}
	return name, end
}

// leave makes everything a test host makes: a namespace with a process in it,
// a mount, a cgroup inside another.
func leave(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	left := traces(name)
	mount := filepath.Join(left.Dir, "a folder")
	commands := [][]string{
		{"ip", "netns", "add", name}, {"mkdir", "-p", mount}, {"mount", "-t", "tmpfs", "none", mount},
	}
	if roots, _ := filepath.Glob("/sys/fs/cgroup/*/tasks"); len(roots) > 0 {
		commands = append(commands, []string{"mkdir", "-p", filepath.Join(filepath.Dir(roots[0]), left.Cgroup, "inner")})
	} else {
		commands = append(commands, []string{"mkdir", "-p", filepath.Join("/sys/fs/cgroup", left.Cgroup, "inner")})
	}
	for _, c := range commands {
		if output, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(c, " "), err, output)
		}
	}
	sleeper := exec.Command("nsenter", "--net=/run/netns/"+name, "sleep", "3600")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 10*time.Second, func() bool {
		program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", sleeper.Process.Pid))
		return err == nil && !strings.HasSuffix(program, "nsenter")
	}, "no process in the namespace")
	return sleeper
}

// present lists what there is of a name.
func present(name string) []string {
	left := traces(name)
	var found []string
	for _, pattern := range []string{left.Dir, filepath.Join("/run/netns", name), "/sys/fs/cgroup" + left.Cgroup, "/sys/fs/cgroup/*" + left.Cgroup} {
		paths, _ := filepath.Glob(pattern)
		found = append(found, paths...)
	}
	return found
}
