package podsource

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// pods note what they are told; those that were removed are here until they are forgotten.
type pods struct {
	updated []*v1.Pod
	removed []types.UID
	here    map[types.UID]bool
}

func (p *pods) Update(pod *v1.Pod) {
	p.updated = append(p.updated, pod)
	p.here[pod.UID] = true
}
func (p *pods) Remove(uid types.UID)     { p.removed = append(p.removed, uid) }
func (p *pods) Known(uid types.UID) bool { return p.here[uid] }

// directory is a folder of manifests that is followed.
type directory struct {
	*testing.T
	dir    string
	got    *pods
	static *Static
}

func newDirectory(t *testing.T) *directory {
	d := &directory{T: t, dir: t.TempDir(), got: &pods{here: map[types.UID]bool{}}}
	d.static = NewStatic(d.dir, "N1", d.got, slog.New(slog.DiscardHandler))
	return d
}

func (d *directory) write(name, text string) {
	d.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o600); err != nil {
		d.Fatal(err)
	}
}

// expect reads the folder and compares how many pods came and went so far.
func (d *directory) expect(waiting bool, came, went int) {
	d.Helper()
	if got := d.static.Read(); got != waiting || len(d.got.updated) != came || len(d.got.removed) != went {
		d.Fatalf("waiting %t, %d pods came, %d went; want %t, %d and %d", got, len(d.got.updated), len(d.got.removed), waiting, came, went)
	}
}

func manifest(name, image string) string {
	return "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + "}\nspec: {containers: [{name: c, image: '" + image + "', livenessProbe: {httpGet: {port: 80}}}]}\n"
}

func TestStaticPodsFollowTheirFiles(t *testing.T) {
	t.Parallel()
	d := newDirectory(t)
	d.write("web.yaml", manifest("web", "nginx"))
	d.write("broken.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containerz: []}\n")
	d.write("zweb.yaml", manifest("web", "other"))
	d.write(".web.yaml.swp", "junk")
	d.expect(false, 1, 0)
	d.expect(false, 1, 0)
	pod := d.got.updated[0]
	c := &pod.Spec.Containers[0]
	if pod.Name != "web-n1" || pod.Namespace != "default" || !IsStatic(pod) || pod.Spec.NodeName != "N1" || c.Image != "nginx" || c.ImagePullPolicy != v1.PullAlways ||
		pod.Spec.RestartPolicy != v1.RestartPolicyAlways || pod.Annotations[HashAnnotation] != string(pod.UID) || pod.Annotations[SeenAnnotation] == "" ||
		c.LivenessProbe.HTTPGet.Scheme != v1.URISchemeHTTP || c.LivenessProbe.PeriodSeconds != 10 {
		t.Errorf("pod %+v", pod)
	}
	d.write("web.yaml", "# a comment changes nothing\n"+manifest("web", "nginx"))
	d.expect(false, 1, 0)

	d.write("web.yaml", manifest("web", "nginx:1"))
	d.expect(true, 1, 1)
	if !slices.Equal(d.got.removed, []types.UID{pod.UID}) {
		t.Errorf("went: %q", d.got.removed)
	}
	d.expect(true, 1, 1)
	delete(d.got.here, pod.UID)
	d.expect(false, 2, 1)
	if next := d.got.updated[1]; next.Name != "web-n1" || next.UID == pod.UID {
		t.Errorf("a changed manifest is another pod: %+v", next)
	}
	for _, name := range []string{"web.yaml", "zweb.yaml"} {
		if err := os.Remove(filepath.Join(d.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	d.expect(false, 2, 2)
}

func TestAManifestWithAUIDIsTheSamePodWhenItChanges(t *testing.T) {
	t.Parallel()
	d := newDirectory(t)
	text := func(image string) string {
		return strings.Replace(manifest("web", image), "{name: web}", "{name: web, uid: mine}", 1)
	}
	d.write("web.yaml", text("nginx"))
	d.expect(false, 1, 0)
	d.write("web.yaml", text("nginx:1"))
	d.expect(false, 2, 0)
	if d.got.updated[0].UID != "mine" || d.got.updated[1].UID != "mine" {
		t.Errorf("UIDs %q, %q", d.got.updated[0].UID, d.got.updated[1].UID)
	}
}

func TestWhatAStaticPodCannotBe(t *testing.T) {
	t.Parallel()
	for change, want := range map[[2]string]string{
		{"name: web}", "name: Web_1}"}: `metadata.name "Web_1-n1"`,
		{"name: c,", "name: c_,"}:      `spec.containers[0].name "c_"`,
		{"image: 'nginx',", ""}:        "spec.containers[0].image: is required",
		{"image: 'nginx',", "image: a, volumeMounts: [{name: v, mountPath: /v}],"}:          `there is no volume "v"`,
		{"image: 'nginx',", "image: a, envFrom: [{configMapRef: {name: x}}],"}:              "static pods may not reference configmaps",
		{"spec: {", "spec: {serviceAccountName: x, "}:                                       "static pods may not reference serviceaccounts",
		{"spec: {", "spec: {volumes: [{name: v, secret: {secretName: x}}], "}:               "static pods may not reference secrets",
		{"spec: {", "spec: {volumes: [{name: v, persistentVolumeClaim: {claimName: x}}], "}: "static pods may not reference persistentvolumeclaims",
		{"kind: Pod", "kind: Job"}: `kind "Job": a v1 Pod is needed`,
	} {
		path := filepath.Join(t.TempDir(), "web.yaml")
		if err := os.WriteFile(path, []byte(strings.Replace(manifest("web", "nginx"), change[0], change[1], 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := load(path, "N1"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q instead of %q: %v, want %s", change[1], change[0], err, want)
		}
	}
}
