package podsource

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

type pods struct {
	updated []*v1.Pod
	removed []types.UID
}

func (p *pods) Update(pod *v1.Pod)   { p.updated = append(p.updated, pod) }
func (p *pods) Remove(uid types.UID) { p.removed = append(p.removed, uid) }

func TestStaticPodsFollowTheirFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := &pods{}
	s := NewStatic(dir, "N1", got, slog.New(slog.NewTextHandler(io.Discard, nil)))
	write("web.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: 'nginx'}]}\n")
	write("broken.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containerz: []}\n")
	write(".web.yaml.swp", "junk")
	s.Read()
	s.Read()
	if len(got.updated) != 1 || len(got.removed) != 0 {
		t.Fatalf("%d pods came, %d went; want 1 and 0", len(got.updated), len(got.removed))
	}
	pod := got.updated[0]
	if pod.Name != "web-n1" || pod.Namespace != "default" || !IsStatic(pod) || pod.Spec.NodeName != "N1" || pod.Spec.Containers[0].ImagePullPolicy != v1.PullAlways ||
		pod.Spec.RestartPolicy != v1.RestartPolicyAlways {
		t.Errorf("pod %+v", pod)
	}
	write("web.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: 'nginx:1'}]}\n")
	s.Read()
	if len(got.updated) != 2 || !slices.Equal(got.removed, []types.UID{pod.UID}) {
		t.Errorf("a changed file is another pod: %d came, %q went", len(got.updated), got.removed)
	}
}
