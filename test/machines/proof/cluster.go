package proof

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/machines/fleet"
)

// commandLimit is how long a command may take. The slowest wait for pods.
const commandLimit = 5 * time.Minute

// kubectlCommand is the kubectl of this computer or, where there is none, the one
// that is built into skiff, which makePackages has built; a test runs in its
// package's folder.
func kubectlCommand(ctx context.Context, f *fleet.Fleet, arguments ...string) *exec.Cmd {
	arguments = append([]string{"--kubeconfig", f.Kubeconfig()}, arguments...)
	if path, err := exec.LookPath("kubectl"); err == nil {
		return f.Command(ctx, path, arguments...)
	}
	return f.Command(ctx, filepath.Join("..", "..", "..", "bin", "skiff"), append([]string{"kubectl"}, arguments...)...)
}

// tryKubectl runs kubectl at the host's end of the fleet's network, through the
// first machine's API unless a flag says otherwise.
func tryKubectl(ctx context.Context, f *fleet.Fleet, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	command := kubectlCommand(ctx, f, arguments...)
	var said, complaints bytes.Buffer
	command.Stdout, command.Stderr = &said, &complaints
	if err := command.Run(); err != nil {
		return said.String(), fmt.Errorf("kubectl %s: %w\n%s%s", strings.Join(arguments, " "), err, said.String(), complaints.String())
	}
	return said.String(), nil
}

// kubectl ends the test when kubectl fails.
func kubectl(t *testing.T, f *fleet.Fleet, arguments ...string) string {
	t.Helper()
	said, err := tryKubectl(t.Context(), f, arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return said
}

// via is kubectl's flag for the API server of a machine.
func via(m *fleet.Machine) string { return "--server=https://" + m.Address.String() + ":6443" }

// says waits until kubectl says what is wanted.
func says(t *testing.T, f *fleet.Fleet, limit time.Duration, want func(said string) bool, arguments ...string) string {
	t.Helper()
	var said string
	var err error
	defer func() {
		if t.Failed() {
			t.Logf("last answer: %s %v", said, err)
		}
	}()
	testenv.Eventually(t, limit, func() bool {
		said, err = tryKubectl(t.Context(), f, arguments...)
		return err == nil && want(said)
	}, "kubectl %s does not say what is wanted", strings.Join(arguments, " "))
	return said
}

// on runs a shell command on a machine and ends the test when it fails.
func on(t *testing.T, m *fleet.Machine, line string) string {
	t.Helper()
	said, err := m.Run(t.Context(), line)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(said)
}

// apply applies a manifest. The server validates it; what kubectl would do so by
// takes an emulated processor a minute to make.
func apply(t *testing.T, f *fleet.Fleet, manifest string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	command := kubectlCommand(ctx, f, "apply", "--validate=false", "-f", "-")
	command.Stdin = strings.NewReader(manifest)
	if said, err := command.CombinedOutput(); err != nil {
		t.Fatalf("kubectl apply: %v\n%s\n%s", err, said, manifest)
	}
}

// status is what `skiff status -o json` says, as far as it is asked for here.
type status struct {
	Healthy  bool `json:"healthy"`
	Machines []struct {
		Member struct {
			Leader    bool `json:"leader"`
			Voter     bool `json:"voter"`
			Reachable bool `json:"reachable"`
		} `json:"member"`
		Status struct {
			NodeName string `json:"nodeName"`
		} `json:"status"`
	} `json:"machines"`
}

// statusOn asks a machine. The command's exit code says only whether all is well.
func statusOn(ctx context.Context, m *fleet.Machine) (status, error) {
	var s status
	said, err := m.Run(ctx, "skiff status -o json || [ $? = 1 ]")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(said), &s); err != nil {
		return s, fmt.Errorf("skiff status on %s says %q: %w", m.Name, said, err)
	}
	return s, nil
}

// leader finds the machine whose store leads.
func leader(t *testing.T, f *fleet.Fleet) *fleet.Machine {
	t.Helper()
	var found *fleet.Machine
	testenv.Eventually(t, time.Minute, func() bool {
		for _, asked := range f.Machines {
			s, err := statusOn(t.Context(), asked)
			if err != nil {
				continue
			}
			for _, machine := range s.Machines {
				for _, m := range f.Machines {
					if machine.Member.Leader && machine.Status.NodeName == m.Name {
						found = m
						return true
					}
				}
			}
		}
		return false
	}, "no machine knows a leader")
	return found
}

// healthy waits until `skiff status` on a machine has nothing to complain of, and
// all nodes are Ready.
func healthy(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	var last string
	defer func() {
		if t.Failed() {
			t.Logf("last answer:\n%s", last)
		}
	}()
	for _, m := range f.Machines {
		testenv.Eventually(t, 2*time.Minute, func() bool {
			said, err := m.Run(t.Context(), "skiff status")
			last = said
			if err != nil {
				last += err.Error()
			}
			return err == nil && strings.Contains(said, fmt.Sprintf("%d of %d Ready", len(f.Machines), len(f.Machines)))
		}, "the cluster is not healthy as %s sees it", m.Name)
	}
}

// others are a fleet's machines but for one.
func others(f *fleet.Fleet, but *fleet.Machine) []*fleet.Machine {
	var rest []*fleet.Machine
	for _, m := range f.Machines {
		if m != but {
			rest = append(rest, m)
		}
	}
	return rest
}

// makePackages builds the packages of a revision and returns their files.
func makePackages(t *testing.T, revision int) []string {
	t.Helper()
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatalf("find the sources: %v", err)
	}
	root := strings.TrimSpace(string(module))
	command := exec.CommandContext(t.Context(), "make", "--no-print-directory", "-s", "-C", root, "deb", fmt.Sprintf("REVISION=%d", revision))
	said, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("make deb: %v\n%s", err, said)
	}
	var files []string
	for _, field := range strings.Fields(string(said)) {
		if strings.HasPrefix(field, "dist/") && strings.HasSuffix(field, ".deb") {
			files = append(files, root+"/"+field)
		}
	}
	if len(files) != 4 {
		t.Fatalf("make deb makes %d packages:\n%s", len(files), said)
	}
	return files
}
