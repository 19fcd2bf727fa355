// Package cluster runs whole clusters on test hosts: network namespaces with a
// way to the world that leads nowhere, in which the real programs run as a
// user would run them. Only tests use it.
package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
)

// commandLimit ends a command that hangs, so that the test can say which.
const commandLimit = 3 * time.Minute

// Host is a machine of its own as far as the network goes, with a cluster
// below a folder of its own.
type Host struct {
	t testing.TB
	// Name of the network namespace, and of the node.
	Name string
	// Root is the folder the cluster keeps its files in.
	Root string
	// Binaries is the folder of the programs.
	Binaries string
}

// NewHost makes a host with the address 192.0.2.1 and removes it after the
// test. Its name is the given one, or one with a number while another run has
// a host of that name.
func NewHost(t testing.TB, name string) *Host {
	t.Helper()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "ip", "nsenter", "curl", "script", "containerd", "runc", "nft", "conntrack")
	binaries := Build(t)
	name = testenv.Claim(t, name, hostTraces)
	h := &Host{t: t, Name: name, Root: hostTraces(name).Dir, Binaries: binaries}
	if err := os.Mkdir(h.Root, 0o700); err != nil {
		t.Fatal(err)
	}
	h.must("ip", "netns", "add", name)
	for _, line := range []string{
		"link set lo up", "link add uplink type bridge", "addr add 192.0.2.1/24 dev uplink", "link set uplink up", "route add default via 192.0.2.254",
	} {
		h.must("ip", append([]string{"-n", name}, strings.Fields(line)...)...)
	}
	return h
}

// hostTraces are what a host is made of.
func hostTraces(name string) testenv.Traces {
	return testenv.Traces{Dir: filepath.Join(os.TempDir(), "skiff-test-"+name), Cgroup: "/" + name, Namespace: name}
}

func (h *Host) must(program string, arguments ...string) {
	h.t.Helper()
	if output, err := exec.Command(program, arguments...).CombinedOutput(); err != nil {
		h.t.Fatalf("%s %s: %v\n%s", program, strings.Join(arguments, " "), err, output)
	}
}

// Command is a program to be run on the host.
func (h *Host) Command(ctx context.Context, program string, arguments ...string) *exec.Cmd {
	// nsenter leaves the mounts alone: ip netns exec would hide the cgroups.
	command := exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + h.Name, program}, arguments...)...)
	command.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(h.Root, "etc/skiff/admin.conf"))
	return command
}

// Try runs a program on the host and returns what it printed.
func (h *Host) Try(program string, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), commandLimit)
	defer cancel()
	var output, problem bytes.Buffer
	command := h.Command(ctx, program, arguments...)
	command.Stdout, command.Stderr = &output, &problem
	err := command.Run()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(program), strings.Join(arguments, " "), errors.Join(err, ctx.Err()), output.String(), problem.String())
	}
	return output.String(), err
}

// Run runs a program on the host; an error ends the test.
func (h *Host) Run(program string, arguments ...string) string {
	h.t.Helper()
	output, err := h.Try(program, arguments...)
	if err != nil {
		h.t.Fatal(err)
	}
	return output
}

// Skiff runs the command line on the host's cluster.
func (h *Host) Skiff(arguments ...string) string {
	h.t.Helper()
	return h.Run(filepath.Join(h.Binaries, "skiff"), arguments...)
}

// Kubectl runs the built-in kubectl.
func (h *Host) Kubectl(arguments ...string) string {
	h.t.Helper()
	return h.Skiff(append([]string{"kubectl"}, arguments...)...)
}

// TryKubectl is Kubectl for what may fail.
func (h *Host) TryKubectl(arguments ...string) (string, error) {
	return h.Try(filepath.Join(h.Binaries, "skiff"), append([]string{"kubectl"}, arguments...)...)
}

// Eventually waits until kubectl's output contains the text.
func (h *Host) Eventually(limit time.Duration, want string, arguments ...string) {
	h.t.Helper()
	var got string
	var err error
	said := false
	defer func() {
		if !said {
			h.t.Logf("last answer: %s %v", got, err)
		}
	}()
	testenv.Eventually(h.t, limit, func() bool {
		got, err = h.TryKubectl(arguments...)
		said = err == nil && strings.Contains(got, want)
		return said
	}, "kubectl %s does not say %q", strings.Join(arguments, " "), want)
}

// Up starts the cluster and takes it down after the test.
func (h *Host) Up(arguments ...string) string {
	h.t.Helper()
	h.t.Cleanup(func() {
		if h.t.Failed() {
			h.logs()
		}
		// The test's context is over by now.
		if output, err := exec.Command("nsenter", "--net=/run/netns/"+h.Name, filepath.Join(h.Binaries, "skiff"), "down", "--root", h.Root).CombinedOutput(); err != nil {
			h.t.Errorf("down: %v\n%s", err, output)
		}
	})
	return h.Skiff(append([]string{"up", "--detach", "--root", h.Root, "--node-name", h.Name, "--cgroup-root", "/" + h.Name}, arguments...)...)
}

// logs shows the ends of the daemons' logs.
func (h *Host) logs() {
	files, _ := filepath.Glob(filepath.Join(h.Root, "var/log/skiff/*.log"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err == nil {
			h.t.Logf("%s:\n%s", file, data[max(0, len(data)-4000):])
		}
	}
}

// PID of a daemon of the cluster.
func (h *Host) PID(daemon string) string {
	h.t.Helper()
	data, err := os.ReadFile(filepath.Join(h.Root, "run/skiff/up", daemon+".pid"))
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}
