package volume

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	mount "k8s.io/mount-utils"

	"github.com/skiff-run/skiff/internal/testenv"
)

type objects map[string]map[string]string

func (o objects) ConfigMap(_, name string) (*v1.ConfigMap, error) {
	if o[name] == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
	}
	return &v1.ConfigMap{Data: o[name]}, nil
}

func (o objects) Secret(_, name string) (*v1.Secret, error) {
	if o[name] == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
	}
	data := map[string][]byte{}
	for k, v := range o[name] {
		data[k] = []byte(v)
	}
	return &v1.Secret{Data: data}, nil
}

type tokens struct{ made int }

func (k *tokens) Token(context.Context, *v1.Pod, string, *int64) (string, time.Time, error) {
	k.made++
	claims := fmt.Sprintf(`{"iat":%d,"exp":%d}`, time.Now().Unix(), time.Now().Add(time.Hour).Unix())
	return fmt.Sprintf("h.%s.%d", base64.RawURLEncoding.EncodeToString([]byte(claims)), k.made), time.Now().Add(time.Hour), nil
}

func newManager(t *testing.T, o objects) *Manager {
	return New(Config{RootDir: t.TempDir(), Objects: o, Tokens: &tokens{}, Mounter: mount.NewFakeMounter(nil), MemoryCapacity: 1 << 30, Now: time.Now})
}

func podWith(volumes ...v1.Volume) *v1.Pod {
	pod := &v1.Pod{Spec: v1.PodSpec{Volumes: volumes, Containers: []v1.Container{{Name: "c"}}}}
	pod.UID, pod.Namespace, pod.Labels = "u", "ns", map[string]string{"app": "web"}
	return pod
}

func ref(name string) v1.LocalObjectReference { return v1.LocalObjectReference{Name: name} }

func content(t *testing.T, m *Manager, pod *v1.Pod, volume, name string) string {
	t.Helper()
	dir, ok := m.Path(pod, volume)
	if !ok {
		t.Fatalf("no volume %s", volume)
	}
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestAConfigMapVolumeFollowsItsObject(t *testing.T) {
	t.Parallel()
	o := objects{"c": {"k": "1", "other": "x"}}
	m := newManager(t, o)
	mode := int32(0o400)
	pod := podWith(v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: ref("c"), Items: []v1.KeyToPath{{Key: "k", Path: "dir/key", Mode: &mode}}}}})
	for _, value := range []string{"1", "2"} {
		o["c"]["k"] = value
		if _, err := m.SetUp(t.Context(), pod, Node{}); err != nil {
			t.Fatal(err)
		}
		if got := content(t, m, pod, "v", "dir/key"); got != value {
			t.Errorf("content %q, want %q", got, value)
		}
	}
	path, _ := m.Path(pod, "v")
	if want := "pods/u/volumes/kubernetes.io~configmap/v"; !strings.HasSuffix(path, want) {
		t.Errorf("path %s, want .../%s", path, want)
	}
	if _, err := os.Stat(filepath.Join(path, "other")); !os.IsNotExist(err) {
		t.Error("a key that was not asked for is there")
	}
}

func TestMissingObjects(t *testing.T) {
	t.Parallel()
	yes := true
	m := newManager(t, objects{"c": {"k": "1"}})
	for name, test := range map[string]struct {
		source v1.VolumeSource
		want   string
	}{
		"a missing config map":   {v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: ref("no")}}, `MountVolume.SetUp failed for volume "v" : configmaps "no" not found`},
		"an optional one":        {v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: ref("no"), Optional: &yes}}, ""},
		"a missing secret":       {v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "no"}}, `MountVolume.SetUp failed for volume "v" : secrets "no" not found`},
		"a missing key":          {v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: ref("c"), Items: []v1.KeyToPath{{Key: "z", Path: "z"}}}}, `MountVolume.SetUp failed for volume "v" : configmap references non-existent config key: z`},
		"an unknown type":        {v1.VolumeSource{NFS: &v1.NFSVolumeSource{}}, `MountVolume.SetUp failed for volume "v" : no volume plugin matched`},
		"a path of another type": {v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: "/etc/passwd", Type: hostPathType(v1.HostPathDirectory)}}, `MountVolume.SetUp failed for volume "v" : hostPath type check failed: /etc/passwd is not a directory`},
	} {
		_, err := m.SetUp(t.Context(), podWith(v1.Volume{Name: "v", VolumeSource: test.source}), Node{})
		if (err == nil) != (test.want == "") || (err != nil && err.Error() != test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}

func hostPathType(h v1.HostPathType) *v1.HostPathType { return &h }

func TestAServiceAccountTokenIsKeptUntilItIsOld(t *testing.T) {
	t.Parallel()
	m := newManager(t, objects{"kube-root-ca.crt": {"ca.crt": "CA"}})
	made := m.Tokens.(*tokens)
	pod := podWith(v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
		{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}},
		{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: ref("kube-root-ca.crt"), Items: []v1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
		{DownwardAPI: &v1.DownwardAPIProjection{Items: []v1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}},
	}}}})
	for range 2 {
		again, err := m.SetUp(t.Context(), pod, Node{})
		if err != nil {
			t.Fatal(err)
		}
		if until := time.Until(again); until < 46*time.Minute || until > 49*time.Minute {
			t.Errorf("renewal in %s, want after four fifths of an hour", until)
		}
	}
	if made.made != 1 {
		t.Errorf("%d tokens were made, although the first is good", made.made)
	}
	m.Now = func() time.Time { return time.Now().Add(50 * time.Minute) }
	if _, err := m.SetUp(t.Context(), pod, Node{}); err != nil || made.made != 2 {
		t.Errorf("%d tokens were made, error %v; want a second one", made.made, err)
	}
	if content(t, m, pod, "v", "ca.crt") != "CA" || content(t, m, pod, "v", "labels") != `app="web"` {
		t.Error("the other sources are not there")
	}
}

func TestMemoryVolumesAreMountedLimitedAndRemoved(t *testing.T) {
	testenv.RequireRoot(t)
	m := newManager(t, objects{"s": {"p": "hush"}})
	m.Mounter = mount.New("")
	size := resource.MustParse("1Mi")
	group := int64(4242)
	pod := podWith(
		v1.Volume{Name: "mem", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory, SizeLimit: &size}}},
		v1.Volume{Name: "secret", VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "s"}}},
	)
	pod.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: &group}
	for range 2 {
		if _, err := m.SetUp(t.Context(), pod, Node{}); err != nil {
			t.Fatal(err)
		}
	}
	path, _ := m.Path(pod, "mem")
	var fs syscall.Statfs_t
	if err := syscall.Statfs(path, &fs); err != nil || int64(fs.Blocks)*fs.Bsize != 1<<20 {
		t.Errorf("size %d, %v; want 1 MiB", int64(fs.Blocks)*fs.Bsize, err)
	}
	secret, _ := m.Path(pod, "secret")
	info, err := os.Stat(filepath.Join(secret, "p"))
	if err != nil {
		t.Fatal(err)
	}
	if stat := info.Sys().(*syscall.Stat_t); int64(stat.Gid) != group || info.Mode().Perm() != 0o644 {
		t.Errorf("group %d, mode %v", stat.Gid, info.Mode())
	}
	sub, err := m.SubPath(pod.UID, path, "mem", "c", 0, "data/x")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "data/x/f"), []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(sub, "f")); err != nil || string(data) != "1" {
		t.Errorf("sub path: %q, %v", data, err)
	}
	if err := os.Symlink("/etc", filepath.Join(path, "astray")); err != nil {
		t.Fatal(err)
	}
	if _, err := m.SubPath(pod.UID, path, "mem", "c", 1, "astray"); err == nil {
		t.Error("a link out of the volume was followed")
	}
	if err := m.Remove(pod.UID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(m.PodDir(pod.UID)); !os.IsNotExist(err) {
		t.Errorf("the pod's directory is still there: %v", err)
	}
}
