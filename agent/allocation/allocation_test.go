package allocation

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
)

func pod(uid, cpu string) *v1.Pod {
	p := &v1.Pod{}
	p.UID = types.UID(uid)
	p.Spec.Containers = []v1.Container{{Name: "a", Resources: requests(cpu)}, {Name: "b"}}
	return p
}

func requests(cpu string) v1.ResourceRequirements {
	return v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu)}}
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func cpu(p *v1.Pod) string { return p.Spec.Containers[0].Resources.Requests.Cpu().String() }

func TestWhatWasAllocatedSurvivesTheAgent(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "allocations")
	s := open(t, dir)
	if err := s.Admit(pod("u", "1")); err != nil {
		t.Fatal(err)
	}
	// Killed while it wrote another.
	if err := os.WriteFile(filepath.Join(dir, "v.json.new"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "w.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	wanted := pod("u", "2")
	allocated, known := s.Allocated(wanted)
	if !known || cpu(allocated) != "1" || cpu(wanted) != "2" {
		t.Fatalf("allocated %s, wanted %s, known %v", cpu(allocated), cpu(wanted), known)
	}
	if _, known := s.Allocated(pod("w", "1")); known {
		t.Error("a torn file counts")
	}
	if err := s.Resize(wanted); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if same, _ := s.Allocated(wanted); same != wanted {
		t.Error("a pod that has what it wants was copied")
	}
	actuated, _ := s.Actuated("u")
	if !actuated.Equal(Of(pod("u", "1"))) {
		t.Errorf("in force are %v before anybody changed a cgroup", actuated)
	}
	if err := s.ActuateContainer("u", "a", requests("2")); err != nil {
		t.Fatal(err)
	}
	if actuated, _ = open(t, dir).Actuated("u"); !actuated.Equal(Of(wanted)) {
		t.Errorf("in force are %v", actuated)
	}
	s.Keep(func(uid types.UID) bool { return uid != "u" })
	if _, known := open(t, dir).Allocated(wanted); known {
		t.Error("a forgotten pod is still there")
	}
}

func TestWhoIsResizedFirst(t *testing.T) {
	t.Parallel()
	of := func(uid, from, to string, priority int32, class v1.PodQOSClass, since string) Pending {
		wanted := pod(uid, to)
		wanted.Spec.Priority, wanted.Status.QOSClass = &priority, class
		return Pending{Wanted: wanted, Allocated: pod(uid, from), Since: since}
	}
	list := []Pending{
		of("later", "1", "2", 0, v1.PodQOSBurstable, "2026-01-02"),
		of("earlier", "1", "2", 0, v1.PodQOSBurstable, "2026-01-01"),
		of("guaranteed", "1", "2", 0, v1.PodQOSGuaranteed, "2026-01-03"),
		of("important", "1", "2", 9, v1.PodQOSBurstable, "2026-01-04"),
		of("shrinking", "2", "1", 0, v1.PodQOSBurstable, ""),
	}
	Order(list)
	for i, want := range []types.UID{"shrinking", "important", "guaranteed", "earlier", "later"} {
		if list[i].Wanted.UID != want {
			t.Errorf("%d is %s, want %s", i, list[i].Wanted.UID, want)
		}
	}
}

func TestEventsNameTheAmounts(t *testing.T) {
	t.Parallel()
	const want = `Pod resize error: {"containers":[{"name":"a","resources":{"requests":{"cpu":"2"}}},{"name":"b","resources":{}}],"generation":3,"error":"no"}`
	if got := Message("Pod resize error", pod("u", "2"), 3, "no"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
