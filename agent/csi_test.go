package agent_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/agent/volume"
	"github.com/skiff-run/skiff/internal/testenv"
)

// registrar does what node-driver-registrar does beside a driver.
type registrar struct {
	registration.UnimplementedRegistrationServer
	name, endpoint string
	told           chan *registration.RegistrationStatus
}

func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: r.name, Endpoint: r.endpoint, SupportedVersions: []string{"1.0.0"}}, nil
}

func (r *registrar) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	r.told <- s
	return &registration.RegistrationStatusResponse{}, nil
}

func serveUnix(t *testing.T, path string, add func(*grpc.Server)) (stop func()) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o750))
	listener, err := net.Listen("unix", path)
	must(t, err)
	server := grpc.NewServer()
	add(server)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	stop = sync.OnceFunc(func() { server.Stop(); <-done })
	t.Cleanup(stop)
	return stop
}

// bindDriver is a driver whose volumes are directories, and which writes down what it
// was asked.
type bindDriver struct {
	spec.UnimplementedNodeServer
	dir string

	mu    sync.Mutex
	calls []string
	asked map[string]string
}

func (d *bindDriver) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, fmt.Sprintf(format, args...))
}

func (d *bindDriver) log() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}

func (d *bindDriver) NodeGetInfo(context.Context, *spec.NodeGetInfoRequest) (*spec.NodeGetInfoResponse, error) {
	return &spec.NodeGetInfoResponse{NodeId: "the-node", MaxVolumesPerNode: 7, AccessibleTopology: &spec.Topology{Segments: map[string]string{"topology.example.com/rack": "r1"}}}, nil
}

func (d *bindDriver) NodeGetCapabilities(context.Context, *spec.NodeGetCapabilitiesRequest) (*spec.NodeGetCapabilitiesResponse, error) {
	return &spec.NodeGetCapabilitiesResponse{Capabilities: []*spec.NodeServiceCapability{
		{Type: &spec.NodeServiceCapability_Rpc{Rpc: &spec.NodeServiceCapability_RPC{Type: spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME}}},
	}}, nil
}

func bind(from, to string) error {
	if err := os.MkdirAll(to, 0o750); err != nil {
		return err
	}
	var here, there unix.Stat_t
	if unix.Stat(from, &here) == nil && unix.Stat(to, &there) == nil && here.Ino == there.Ino && here.Dev == there.Dev {
		return nil
	}
	return unix.Mount(from, to, "", unix.MS_BIND, "")
}

func unbind(path string) error {
	_ = unix.Unmount(path, 0)
	return os.RemoveAll(path)
}

func (d *bindDriver) NodeStageVolume(_ context.Context, r *spec.NodeStageVolumeRequest) (*spec.NodeStageVolumeResponse, error) {
	d.note("stage %s %s key=%s", r.GetVolumeId(), r.GetVolumeCapability().GetMount().GetFsType(), r.GetSecrets()["key"])
	source := filepath.Join(d.dir, r.GetVolumeId())
	if err := os.MkdirAll(source, 0o755); err != nil {
		return nil, err
	}
	return &spec.NodeStageVolumeResponse{}, bind(source, r.GetStagingTargetPath())
}

func (d *bindDriver) NodeUnstageVolume(_ context.Context, r *spec.NodeUnstageVolumeRequest) (*spec.NodeUnstageVolumeResponse, error) {
	d.note("unstage %s", r.GetVolumeId())
	return &spec.NodeUnstageVolumeResponse{}, unix.Unmount(r.GetStagingTargetPath(), 0)
}

func (d *bindDriver) NodePublishVolume(_ context.Context, r *spec.NodePublishVolumeRequest) (*spec.NodePublishVolumeResponse, error) {
	d.note("publish %s read-only=%v attached=%s", strings.SplitN(r.GetVolumeId(), "-", 2)[0], r.GetReadonly(), r.GetPublishContext()["device"])
	d.mu.Lock()
	d.asked = r.GetVolumeContext()
	d.mu.Unlock()
	source := r.GetStagingTargetPath()
	if source == "" {
		source = filepath.Join(d.dir, "inline")
		if err := os.MkdirAll(source, 0o755); err != nil {
			return nil, err
		}
	}
	return &spec.NodePublishVolumeResponse{}, bind(source, r.GetTargetPath())
}

func (d *bindDriver) NodeUnpublishVolume(_ context.Context, r *spec.NodeUnpublishVolumeRequest) (*spec.NodeUnpublishVolumeResponse, error) {
	d.note("unpublish %s", strings.SplitN(r.GetVolumeId(), "-", 2)[0])
	return &spec.NodeUnpublishVolumeResponse{}, unbind(r.GetTargetPath())
}

func (m *machine) driver(object *storagev1.CSIDriver) {
	m.Helper()
	_, err := m.client.StorageV1().CSIDrivers().Create(context.Background(), object, metav1.CreateOptions{})
	must(m, err)
}

func (m *machine) withVolume(name string, source v1.VolumeSource, change func(*v1.Pod)) {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PodSpec{
		RestartPolicy: v1.RestartPolicyAlways, ServiceAccountName: "robot",
		Containers: []v1.Container{{
			Name: "app", Image: testImage, ImagePullPolicy: v1.PullIfNotPresent, Command: []string{"sleep", "3600"},
			VolumeMounts: []v1.VolumeMount{{Name: "data", MountPath: "/data"}},
		}},
		Volumes: []v1.Volume{{Name: "data", VolumeSource: source}},
	}}
	change(pod)
	m.create(pod)
}

func TestADriversVolumes(t *testing.T) {
	m := newMachine(t)
	ctx := context.Background()
	const name = "bind.example.com"
	driver := &bindDriver{dir: filepath.Join(m.dir, "volumes")}
	endpoint := filepath.Join(m.settings.RootDir, "plugins", name, "csi.sock")
	socket := filepath.Join(m.settings.RootDir, "plugins_registry", name+"-reg.sock")
	serveUnix(t, endpoint, func(s *grpc.Server) { spec.RegisterNodeServer(s, driver) })
	told := make(chan *registration.RegistrationStatus, 10)
	stopRegistrar := serveUnix(t, socket, func(s *grpc.Server) {
		registration.RegisterRegistrationServer(s, &registrar{name: name, endpoint: endpoint, told: told})
	})
	m.driver(&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.CSIDriverSpec{
		AttachRequired: ptr.To(true), PodInfoOnMount: ptr.To(true), FSGroupPolicy: ptr.To(storagev1.FileFSGroupPolicy),
		VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral},
	}})
	_, err := m.client.CoreV1().Secrets("storage").Create(ctx, &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "key", Namespace: "storage"}, Data: map[string][]byte{"key": []byte("hush")}}, metav1.CreateOptions{})
	must(t, err)
	m.claimed("disk", v1.PersistentVolumeSpec{
		AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
		PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{
			Driver: name, VolumeHandle: "vol", FSType: "ext4", NodeStageSecretRef: &v1.SecretReference{Namespace: "storage", Name: "key"},
			VolumeAttributes: map[string]string{"colour": "blue"},
		}},
	})
	m.start()
	m.ready()

	t.Run("the API learns of the driver", func(t *testing.T) {
		select {
		case status := <-told:
			if !status.GetPluginRegistered() {
				t.Fatalf("told %v", status)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the driver was told nothing")
		}
		node, err := m.client.StorageV1().CSINodes().Get(ctx, nodeName, metav1.GetOptions{})
		must(t, err)
		want := storagev1.CSINodeDriver{Name: name, NodeID: "the-node", TopologyKeys: []string{"topology.example.com/rack"}}
		if d := node.Spec.Drivers; len(d) != 1 || d[0].Name != want.Name || d[0].NodeID != want.NodeID || !slices.Equal(d[0].TopologyKeys, want.TopologyKeys) || *d[0].Allocatable.Count != 7 {
			t.Errorf("drivers %+v", d)
		}
		if labels := m.node().Labels; labels["topology.example.com/rack"] != "r1" {
			t.Errorf("labels %v", labels)
		}
	})
	t.Run("a volume waits until it is attached, and is staged once", func(t *testing.T) {
		group := int64(4242)
		m.withVolume("one", ofClaim("disk"), func(p *v1.Pod) { p.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: &group} })
		testenv.Eventually(t, 20*time.Second, func() bool { return m.said("volume has not been attached to this node yet") }, "what is missing is said")
		attachment := &storagev1.VolumeAttachment{
			ObjectMeta: metav1.ObjectMeta{Name: attachmentName("vol", name)}, Spec: storagev1.VolumeAttachmentSpec{Attacher: name, NodeName: nodeName},
			Status: storagev1.VolumeAttachmentStatus{Attached: true, AttachmentMetadata: map[string]string{"device": "sdx"}},
		}
		_, err := m.client.StorageV1().VolumeAttachments().Create(ctx, attachment, metav1.CreateOptions{})
		must(t, err)
		testenv.Eventually(t, 40*time.Second, func() bool { return isReady(m.pod("one")) }, "the pod is Ready")
		m.withVolume("two", ofClaim("disk"), func(*v1.Pod) {})
		testenv.Eventually(t, 20*time.Second, func() bool { return isReady(m.pod("two")) }, "the second pod is Ready")
		calls := driver.log()
		if !slices.Contains(calls, "stage vol ext4 key=hush") || !slices.Contains(calls, "publish vol read-only=false attached=sdx") {
			t.Errorf("calls %q", calls)
		}
		if out, err := m.exec("one", "app", "ls", "-dn", "/data"); err != nil || !strings.Contains(out, "drwxrwsr-x") || !strings.Contains(out, "4242") {
			t.Errorf("the volume's group: %q, %v", out, err)
		}
		driver.mu.Lock()
		asked := driver.asked
		driver.mu.Unlock()
		if asked["colour"] != "blue" || asked["csi.storage.k8s.io/pod.name"] != "two" || asked["csi.storage.k8s.io/serviceAccount.name"] != "robot" || asked["csi.storage.k8s.io/ephemeral"] != "false" {
			t.Errorf("the driver was told %v", asked)
		}
	})
	t.Run("it is unstaged with the last pod, by an agent that was killed", func(t *testing.T) {
		m.remove("one")
		if calls := driver.log(); slices.Contains(calls, "unstage vol") || !slices.Contains(calls, "unpublish vol") {
			t.Errorf("calls %q", calls)
		}
		m.stop()
		m.start()
		testenv.Eventually(t, 20*time.Second, func() bool { code, _ := m.tryGet("/pods"); return code == 200 }, "the agent serves")
		m.remove("two")
		if calls := driver.log(); calls[len(calls)-1] != "unstage vol" {
			t.Errorf("calls %q", calls)
		}
		if left := m.mounts(); left != "" {
			t.Errorf("mounts are left: %s", left)
		}
	})
	t.Run("a volume in the pod's spec", func(t *testing.T) {
		m.withVolume("inline", v1.VolumeSource{CSI: &v1.CSIVolumeSource{Driver: name, VolumeAttributes: map[string]string{"size": "1"}}}, func(*v1.Pod) {})
		testenv.Eventually(t, 30*time.Second, func() bool { return isReady(m.pod("inline")) }, "the pod is Ready")
		driver.mu.Lock()
		asked := driver.asked
		driver.mu.Unlock()
		if asked["size"] != "1" || asked["csi.storage.k8s.io/ephemeral"] != "true" {
			t.Errorf("the driver was told %v", asked)
		}
		m.remove("inline")
		testenv.Eventually(t, 10*time.Second, func() bool { return m.mounts() == "" }, "mounts are left: %s", m.mounts())
	})
	t.Run("a driver that goes is taken out", func(t *testing.T) {
		stopRegistrar()
		must(t, os.RemoveAll(socket))
		testenv.Eventually(t, 20*time.Second, func() bool {
			node, err := m.client.StorageV1().CSINodes().Get(ctx, nodeName, metav1.GetOptions{})
			return err == nil && len(node.Spec.Drivers) == 0
		}, "the CSINode still names the driver")
	})
}

// attachmentName is what the control plane calls the attachment of a volume to this node.
func attachmentName(handle, driver string) string {
	return volume.AttachmentName(handle, driver, nodeName)
}

// TestTheHostPathDriver runs Kubernetes' example driver, where its program is found.
func TestTheHostPathDriver(t *testing.T) {
	testenv.RequireProgram(t, "hostpathplugin")
	m := newMachine(t)
	const name = "hostpath.csi.k8s.io"
	endpoint := filepath.Join(m.settings.RootDir, "plugins", name, "csi.sock")
	must(t, os.MkdirAll(filepath.Dir(endpoint), 0o750))
	program := exec.Command("hostpathplugin", "--drivername="+name, "--endpoint=unix://"+endpoint, "--nodeid=the-node", "--statedir="+filepath.Join(m.dir, "state-of-driver"))
	program.Stderr = os.Stderr
	must(t, program.Start())
	t.Cleanup(func() { _ = program.Process.Kill(); _ = program.Wait() })
	conn, err := grpc.NewClient("unix://"+endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer conn.Close()
	var made *spec.CreateVolumeResponse
	testenv.Eventually(t, 20*time.Second, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		made, err = spec.NewControllerClient(conn).CreateVolume(ctx, &spec.CreateVolumeRequest{
			Name: "disk", CapacityRange: &spec.CapacityRange{RequiredBytes: 1 << 20},
			VolumeCapabilities: []*spec.VolumeCapability{{
				AccessMode: &spec.VolumeCapability_AccessMode{Mode: spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
				AccessType: &spec.VolumeCapability_Mount{Mount: &spec.VolumeCapability_MountVolume{}},
			}},
		})
		return err == nil
	}, "the driver makes a volume: %v", err)
	serveUnix(t, filepath.Join(m.settings.RootDir, "plugins_registry", name+"-reg.sock"), func(s *grpc.Server) {
		registration.RegisterRegistrationServer(s, &registrar{name: name, endpoint: endpoint, told: make(chan *registration.RegistrationStatus, 10)})
	})
	m.driver(&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.CSIDriverSpec{
		AttachRequired: ptr.To(false), PodInfoOnMount: ptr.To(true), FSGroupPolicy: ptr.To(storagev1.FileFSGroupPolicy),
		VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral},
	}})
	m.claimed("disk", v1.PersistentVolumeSpec{
		AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
		PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{
			Driver: name, VolumeHandle: made.GetVolume().GetVolumeId(), VolumeAttributes: made.GetVolume().GetVolumeContext(),
		}},
	})
	m.start()
	m.ready()
	m.withVolume("disk", ofClaim("disk"), func(*v1.Pod) {})
	m.withVolume("scratch", v1.VolumeSource{CSI: &v1.CSIVolumeSource{Driver: name}}, func(*v1.Pod) {})
	for _, pod := range []string{"disk", "scratch"} {
		testenv.Eventually(t, 40*time.Second, func() bool { return isReady(m.pod(pod)) }, "pod %s is Ready", pod)
		if out, err := m.exec(pod, "app", "touch", "/data/here"); err != nil {
			t.Errorf("write to the volume of %s: %q, %v", pod, out, err)
		}
		m.remove(pod)
	}
	testenv.Eventually(t, 10*time.Second, func() bool { return m.mounts() == "" }, "mounts are left: %s", m.mounts())
}
