package agent_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/internal/testenv"
)

// remove ends a pod as the API server would.
func (m *machine) remove(name string) {
	m.Helper()
	now, grace := metav1.Now(), int64(0)
	pod := m.pod(name)
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &now, &grace
	must(m, m.client.Tracker().Update(v1.SchemeGroupVersion.WithResource("pods"), pod, "default"))
	testenv.Eventually(m, 20*time.Second, func() bool { return m.pod(name) == nil }, "the pod is gone from the API")
}

// mounts are the mount points below the machine's folder.
func (m *machine) mounts() string {
	m.Helper()
	data, err := os.ReadFile("/proc/mounts")
	must(m, err)
	var found []string
	for _, line := range strings.Split(string(data), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], m.settings.RootDir) {
			found = append(found, fields[1])
		}
	}
	return strings.Join(found, "\n")
}

// said reports whether an event has the text.
func (m *machine) said(text string) bool {
	m.Helper()
	events, err := m.client.CoreV1().Events("default").List(context.Background(), metav1.ListOptions{})
	must(m, err)
	for i := range events.Items {
		if strings.Contains(events.Items[i].Message, text) {
			return true
		}
	}
	return false
}

func reference(name string) v1.LocalObjectReference { return v1.LocalObjectReference{Name: name} }

const rootPEM = `-----BEGIN CERTIFICATE-----
AAAA
-----END CERTIFICATE-----
`

// claimed puts a volume and its claim into the API, bound to each other.
func (m *machine) claimed(name string, spec v1.PersistentVolumeSpec) {
	m.Helper()
	claim := &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: "uid-of-" + "claim"}}
	claim.Spec.VolumeName, claim.Status.Phase = name, v1.ClaimBound
	spec.ClaimRef = &v1.ObjectReference{Namespace: "default", Name: name, UID: claim.UID}
	_, err := m.client.CoreV1().PersistentVolumes().Create(context.Background(), &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{})
	must(m, err)
	_, err = m.client.CoreV1().PersistentVolumeClaims("default").Create(context.Background(), claim, metav1.CreateOptions{})
	must(m, err)
}

func ofClaim(name string) v1.VolumeSource {
	return v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: name}}
}

// disk is a loop device of 32 MiB.
func (m *machine) disk() string {
	m.Helper()
	testenv.RequireProgram(m, "losetup", "mkfs.ext4")
	file := filepath.Join(m.dir, "disk")
	must(m, os.WriteFile(file, nil, 0o600))
	must(m, os.Truncate(file, 32<<20))
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		m.Skipf("no loop devices: %s", out)
	}
	device := strings.TrimSpace(string(out))
	m.Cleanup(func() {
		if out, err := exec.Command("losetup", "-d", device).CombinedOutput(); err != nil {
			m.Errorf("release %s: %s", device, out)
		}
	})
	return device
}

func TestEveryKindOfVolume(t *testing.T) {
	m := newMachine(t)
	ctx := context.Background()
	_, err := m.client.CoreV1().ConfigMaps("default").Create(ctx, &v1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "settings", Namespace: "default"}, Data: map[string]string{"color": "blue"},
	}, metav1.CreateOptions{})
	must(t, err)
	bundle := &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: "roots"}, Spec: certificatesv1.ClusterTrustBundleSpec{TrustBundle: "who wrote this\n" + rootPEM + rootPEM}}
	_, err = m.client.CertificatesV1().ClusterTrustBundles().Create(ctx, bundle, metav1.CreateOptions{})
	must(t, err)
	data := filepath.Join(m.dir, "data")
	must(t, os.Mkdir(data, 0o755))
	must(t, os.WriteFile(filepath.Join(data, "there"), []byte("before"), 0o600))
	m.claimed("shelf", v1.PersistentVolumeSpec{PersistentVolumeSource: v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: data}}})
	m.start()
	m.ready()

	group, name, quiet := int64(4242), "roots", "nothing"
	yes := true
	m.create(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: v1.PodSpec{
		RestartPolicy:   v1.RestartPolicyAlways,
		SecurityContext: &v1.PodSecurityContext{FSGroup: &group},
		Containers: []v1.Container{{
			Name: "app", Image: testImage, ImagePullPolicy: v1.PullIfNotPresent, Command: []string{"sleep", "3600"},
			VolumeMounts: []v1.VolumeMount{
				{Name: "settings", MountPath: "/settings"}, {Name: "image", MountPath: "/image"}, {Name: "image", MountPath: "/part", SubPath: "etc"},
				{Name: "trust", MountPath: "/trust"}, {Name: "shelf", MountPath: "/shelf"}, {Name: "scratch", MountPath: "/scratch"},
			},
		}},
		Volumes: []v1.Volume{
			{Name: "settings", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: reference("settings")}}},
			{Name: "image", VolumeSource: v1.VolumeSource{Image: &v1.ImageVolumeSource{Reference: testImage, PullPolicy: v1.PullIfNotPresent}}},
			{Name: "trust", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{
				{ClusterTrustBundle: &v1.ClusterTrustBundleProjection{Name: &name, Path: "roots.pem"}},
				{ClusterTrustBundle: &v1.ClusterTrustBundleProjection{SignerName: &quiet, LabelSelector: &metav1.LabelSelector{}, Optional: &yes, Path: "none.pem"}},
			}}}},
			{Name: "shelf", VolumeSource: ofClaim("shelf")},
			{Name: "scratch", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
		},
	}})
	testenv.Eventually(t, 30*time.Second, func() bool { return isReady(m.pod("all")) }, "the pod is Ready")
	run := func(script string) string {
		t.Helper()
		out, err := m.exec("all", "app", "sh", "-c", strings.ReplaceAll(script, " ", "+"))
		if err != nil {
			out += err.Error()
		}
		return strings.TrimSpace(out)
	}
	t.Run("what the API holds can be read and not written", func(t *testing.T) {
		if out := run("cat /settings/color"); out != "blue" {
			t.Errorf("content %q", out)
		}
		if out := run("touch /settings/x"); !strings.Contains(out, "Read-only file system") {
			t.Errorf("writing says %q", out)
		}
	})
	t.Run("an image is mounted, whole and in part, and none of it runs", func(t *testing.T) {
		if out := run("cat /part/passwd"); !strings.HasPrefix(out, "root:x:0:0:root:/:/bin/sh") {
			t.Errorf("part: %q", out)
		}
		if out := run("touch /image/x"); !strings.Contains(out, "Read-only file system") {
			t.Errorf("writing says %q", out)
		}
		if out := run("/image/bin/busybox true"); !strings.Contains(strings.ToLower(out), "permission denied") {
			t.Errorf("executing says %q", out)
		}
	})
	t.Run("trust bundles follow the API", func(t *testing.T) {
		if out := run("cat /trust/roots.pem"); out+"\n" != rootPEM {
			t.Errorf("bundle %q", out)
		}
		if out := run("cat /trust/none.pem"); out != "" {
			t.Errorf("a bundle of nothing: %q", out)
		}
		changed := bundle.DeepCopy()
		changed.Spec.TrustBundle = strings.ReplaceAll(rootPEM, "AAAA", "BBBB")
		_, err := m.client.CertificatesV1().ClusterTrustBundles().Update(ctx, changed, metav1.UpdateOptions{})
		must(t, err)
		testenv.Eventually(t, 10*time.Second, func() bool { return strings.Contains(run("cat /trust/roots.pem"), "BBBB") }, "the file changed")
	})
	t.Run("a claim's volume belongs to the pod's group", func(t *testing.T) {
		if out := run("ls -ln /shelf/there"); !strings.HasPrefix(out, "-rw-rw----") || !strings.Contains(out, "4242") {
			t.Errorf("file %q", out)
		}
	})
	t.Run("an agent that was killed finds it again and lets go of everything", func(t *testing.T) {
		m.stop()
		m.start()
		testenv.Eventually(t, 15*time.Second, func() bool { code, _ := m.tryGet("/pods"); return code == 200 }, "the agent serves")
		m.remove("all")
		testenv.Eventually(t, 10*time.Second, func() bool { return m.mounts() == "" }, "mounts are left: %s", m.mounts())
		if content, err := os.ReadFile(filepath.Join(data, "there")); err != nil || string(content) != "before" {
			t.Errorf("the volume's content: %q, %v", content, err)
		}
	})
}

func TestADiskIsMountedOrPassedOn(t *testing.T) {
	m := newMachine(t)
	device := m.disk()
	block := v1.PersistentVolumeBlock
	source := v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: device}}
	m.claimed("raw", v1.PersistentVolumeSpec{PersistentVolumeSource: source, VolumeMode: &block})
	m.claimed("formatted", v1.PersistentVolumeSpec{PersistentVolumeSource: source})
	m.start()
	m.ready()
	pod := func(name string, claim string, change func(*v1.Container)) {
		c := v1.Container{Name: "app", Image: testImage, ImagePullPolicy: v1.PullIfNotPresent, Command: []string{"sleep", "3600"}}
		change(&c)
		m.create(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PodSpec{
			RestartPolicy: v1.RestartPolicyAlways, Containers: []v1.Container{c}, Volumes: []v1.Volume{{Name: "disk", VolumeSource: ofClaim(claim)}},
		}})
	}
	pod("raw", "raw", func(c *v1.Container) { c.VolumeDevices = []v1.VolumeDevice{{Name: "disk", DevicePath: "/dev/xvda"}} })
	testenv.Eventually(t, 30*time.Second, func() bool { return isReady(m.pod("raw")) }, "the pod with the raw disk is Ready")
	if out, err := m.exec("raw", "app", "sh", "-c", "echo+mark+>/dev/xvda%3Bhead+-c+4+/dev/xvda"); err != nil || out != "mark" {
		t.Errorf("the raw disk: %q, %v", out, err)
	}
	m.remove("raw")
	for _, name := range []string{"one", "two"} {
		pod(name, "formatted", func(c *v1.Container) { c.VolumeMounts = []v1.VolumeMount{{Name: "disk", MountPath: "/disk"}} })
	}
	testenv.Eventually(t, 30*time.Second, func() bool { return isReady(m.pod("one")) && isReady(m.pod("two")) }, "the pods with the formatted disk are Ready")
	if out, err := m.exec("one", "app", "touch", "/disk/here"); err != nil {
		t.Errorf("write to the disk: %q, %v", out, err)
	}
	m.remove("one")
	if out, err := m.exec("two", "app", "ls", "/disk"); err != nil || !strings.Contains(out, "here") {
		t.Errorf("the disk after the other pod has gone: %q, %v", out, err)
	}
	m.remove("two")
	testenv.Eventually(t, 10*time.Second, func() bool { return m.mounts() == "" }, "mounts are left: %s", m.mounts())

	pod("mistaken", "raw", func(c *v1.Container) { c.VolumeMounts = []v1.VolumeMount{{Name: "disk", MountPath: "/disk"}} })
	testenv.Eventually(t, 20*time.Second, func() bool {
		return m.said("volume disk has volumeMode Block, but is specified in volumeMounts")
	}, "what is wrong is said")
}
