package housekeeping

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// machine is a node with the pod "known"; the others are gone.
type machine struct {
	sandboxes  []*runtimeapi.PodSandbox
	containers []*runtimeapi.Container
	volumes    []types.UID
	cgroups    []types.UID
	adopted    []string
}

func (m *machine) ListPodSandbox(context.Context, *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	return m.sandboxes, nil
}

func (m *machine) ListContainers(context.Context, *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	return m.containers, nil
}

func (m *machine) Known(uid types.UID) bool { return uid == "known" }

func (m *machine) Adopt(uid types.UID, namespace, name string) {
	m.adopted = append(m.adopted, string(uid)+" "+namespace+"/"+name)
}

// remains are volumes or cgroups.
type remains struct{ list *[]types.UID }

func (r remains) Pods() ([]types.UID, error) { return slices.Clone(*r.list), nil }

func (r remains) Remove(uid types.UID) error {
	*r.list = slices.DeleteFunc(*r.list, func(u types.UID) bool { return u == uid })
	return nil
}

func (r remains) RemovePod(_ context.Context, uid types.UID) error { return r.Remove(uid) }

func TestRemainsOfPodsNobodyKnowsGo(t *testing.T) {
	t.Parallel()
	labels := func(uid string) map[string]string {
		return map[string]string{kubelettypes.KubernetesPodUIDLabel: uid, kubelettypes.KubernetesPodNameLabel: uid, kubelettypes.KubernetesPodNamespaceLabel: "n"}
	}
	m := &machine{
		sandboxes:  []*runtimeapi.PodSandbox{{Labels: labels("known")}, {Labels: labels("running")}},
		containers: []*runtimeapi.Container{{Labels: labels("exited")}, {}},
		volumes:    []types.UID{"known", "running", "gone"}, cgroups: []types.UID{"known", "exited", "gone"},
	}
	logs, links := t.TempDir(), t.TempDir()
	for _, dir := range []string{"n_web_known", "n_web_running", "n_web_gone", "not-a-pod"} {
		if err := os.MkdirAll(filepath.Join(logs, dir, "c"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"living": "n_web_known/c", "dead": "n_web_gone/c", "foreign": "/nowhere"} {
		if !filepath.IsAbs(target) {
			target = filepath.Join(logs, target)
		}
		if err := os.Symlink(target, filepath.Join(links, link)); err != nil {
			t.Fatal(err)
		}
	}
	k := &Keeper{
		Runtime: m, Pods: m, Volumes: remains{&m.volumes}, Cgroups: remains{&m.cgroups}, PodLogsDir: logs, ContainerLogsDir: links, Logger: slog.New(slog.DiscardHandler),
	}
	if err := k.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"running n/running", "exited n/exited"}; !slices.Equal(m.adopted, want) {
		t.Errorf("handed to workers: %q, want %q", m.adopted, want)
	}
	// What the runtime still holds is removed by the workers, in order.
	if want := []types.UID{"known", "running"}; !slices.Equal(m.volumes, want) {
		t.Errorf("volumes of %q, want %q", m.volumes, want)
	}
	if want := []types.UID{"known", "exited"}; !slices.Equal(m.cgroups, want) {
		t.Errorf("cgroups of %q, want %q", m.cgroups, want)
	}
	names := func(dir string) []string {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return list
	}
	if got, want := names(logs), []string{"n_web_known", "n_web_running", "not-a-pod"}; !slices.Equal(got, want) {
		t.Errorf("logs %q, want %q", got, want)
	}
	if got, want := names(links), []string{"foreign", "living"}; !slices.Equal(got, want) {
		t.Errorf("links %q, want %q", got, want)
	}
}
