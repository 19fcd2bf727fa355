package controllers

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/controllers/attachdetach"
	"github.com/skiff-run/skiff/control/controllers/internal/fakeapi"
	"github.com/skiff-run/skiff/control/controllers/localpath"
	"github.com/skiff-run/skiff/control/controllers/persistentvolume"
	"github.com/skiff-run/skiff/internal/testenv"
)

// yard is an API with the controllers of volumes.
type yard struct {
	*testing.T
	client kubernetes.Interface
}

func newYard(t *testing.T) *yard {
	t.Helper()
	client := fakeapi.New()
	factory := informers.NewSharedInformerFactory(client, 0)
	logger := slog.New(slog.DiscardHandler)
	binder, err := persistentvolume.New(client, factory, logger)
	if err != nil {
		t.Fatal(err)
	}
	attacher, err := attachdetach.New(client, factory, logger)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	client.Start(ctx, factory)
	for _, runner := range []controller{binder, attacher, localpath.New(client, factory, logger)} {
		running.Go(func() {
			if err := runner.Run(ctx); err != nil {
				t.Errorf("controller stopped: %v", err)
			}
		})
	}
	t.Cleanup(func() { cancel(); running.Wait(); factory.Shutdown() })
	return &yard{t, client}
}

func (y *yard) must(_ any, err error) {
	y.Helper()
	if err != nil {
		y.Fatal(err)
	}
}

func (y *yard) claim(name, class string, annotations map[string]string) {
	y.Helper()
	y.must(y.client.CoreV1().PersistentVolumeClaims("shop").Create(context.Background(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
		Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending},
	}, metav1.CreateOptions{}))
}

func (y *yard) volume(name, class, size string, source corev1.PersistentVolumeSource) {
	y.Helper()
	y.must(y.client.CoreV1().PersistentVolumes().Create(context.Background(), &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName: class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, PersistentVolumeSource: source,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)},
		},
	}, metav1.CreateOptions{}))
}

func (y *yard) phase(claim string) (corev1.PersistentVolumeClaimPhase, string) {
	y.Helper()
	c, err := y.client.CoreV1().PersistentVolumeClaims("shop").Get(context.Background(), claim, metav1.GetOptions{})
	y.must(c, err)
	return c.Status.Phase, c.Spec.VolumeName
}

func (y *yard) volumePhase(name string) corev1.PersistentVolumePhase {
	y.Helper()
	v, err := y.client.CoreV1().PersistentVolumes().Get(context.Background(), name, metav1.GetOptions{})
	y.must(v, err)
	return v.Status.Phase
}

func (y *yard) eventually(what string, condition func() bool) {
	y.Helper()
	testenv.Eventually(y, 20*time.Second, condition, what)
}

var hostPath = corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/data"}}

func TestClaimsGetTheSmallestVolumeThatFits(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.volume("large", "manual", "10Gi", hostPath)
	y.volume("fits", "manual", "2Gi", hostPath)
	y.volume("small", "manual", "1Mi", hostPath)
	y.volume("other", "other", "1Gi", hostPath)
	y.eventually("the volumes are available", func() bool {
		return y.volumePhase("fits") == corev1.VolumeAvailable && y.volumePhase("large") == corev1.VolumeAvailable
	})
	y.claim("a", "manual", nil)
	y.eventually("the claim is bound to the volume that fits", func() bool {
		phase, volume := y.phase("a")
		return phase == corev1.ClaimBound && volume == "fits" && y.volumePhase("fits") == corev1.VolumeBound
	})
	y.claim("b", "manual", nil)
	y.eventually("the next gets the large one", func() bool { _, volume := y.phase("b"); return volume == "large" })
	y.claim("c", "manual", nil)
	y.volume("late", "manual", "1Gi", hostPath)
	y.eventually("a claim waits for a volume", func() bool { _, volume := y.phase("c"); return volume == "late" })

	if err := y.client.CoreV1().PersistentVolumeClaims("shop").Delete(context.Background(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	y.eventually("the volume is released", func() bool { return y.volumePhase("fits") == corev1.VolumeReleased })
	if err := y.client.CoreV1().PersistentVolumes().Delete(context.Background(), "large", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	y.eventually("a claim whose volume is gone is lost", func() bool { phase, _ := y.phase("b"); return phase == corev1.ClaimLost })
}

func TestADirectoryIsChosenOnTheNodeThatTheSchedulerChose(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	ctx := context.Background()
	y.must(y.client.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: "local-path"}, Provisioner: localpath.Provisioner,
		VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer), ReclaimPolicy: ptr.To(corev1.PersistentVolumeReclaimDelete),
	}, metav1.CreateOptions{}))
	y.must(y.client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: "n1", Labels: map[string]string{corev1.LabelHostname: "h1"}, Annotations: map[string]string{localpath.DirAnnotation: "/var/lib/skiff/volumes"},
	}}, metav1.CreateOptions{}))
	y.claim("data", "local-path", nil)
	if phase, _ := y.phase("data"); phase != corev1.ClaimPending {
		t.Errorf("phase %s before a node was chosen", phase)
	}
	choose := func(node string) {
		claim, err := y.client.CoreV1().PersistentVolumeClaims("shop").Get(ctx, "data", metav1.GetOptions{})
		y.must(claim, err)
		metav1.SetMetaDataAnnotation(&claim.ObjectMeta, "volume.kubernetes.io/selected-node", node)
		claim.ResourceVersion = ""
		y.must(y.client.CoreV1().PersistentVolumeClaims("shop").Update(ctx, claim, metav1.UpdateOptions{}))
	}
	choose("n2")
	y.eventually("the choice of a node that is not there is taken back", func() bool {
		claim, err := y.client.CoreV1().PersistentVolumeClaims("shop").Get(ctx, "data", metav1.GetOptions{})
		y.must(claim, err)
		_, chosen := claim.Annotations["volume.kubernetes.io/selected-node"]
		return !chosen && claim.Annotations["volume.kubernetes.io/storage-provisioner"] == localpath.Provisioner
	})
	choose("n1")
	y.eventually("the claim is bound", func() bool { phase, _ := y.phase("data"); return phase == corev1.ClaimBound })
	_, name := y.phase("data")
	volume, err := y.client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
	y.must(volume, err)
	if volume.Spec.Local.Path != "/var/lib/skiff/volumes/"+name || volume.Labels[localpath.NodeLabel] != "n1" ||
		volume.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values[0] != "h1" {
		t.Errorf("volume %+v", volume)
	}
	if err := y.client.CoreV1().PersistentVolumeClaims("shop").Delete(ctx, "data", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	y.eventually("the volume is deleted", func() bool {
		_, err := y.client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
		return err != nil
	})
}

func TestAVolumeIsAttachedWhereItsPodIs(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	ctx := context.Background()
	for _, node := range []string{"n1", "n2"} {
		y.must(y.client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, metav1.CreateOptions{}))
	}
	y.volume("disk", "manual", "1Gi", corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "csi.example.com", VolumeHandle: "vol"}})
	y.claim("disk", "manual", nil)
	y.eventually("the claim is bound", func() bool { phase, _ := y.phase("disk"); return phase == corev1.ClaimBound })
	pod := func(name, node string) {
		y.must(y.client.CoreV1().Pods("shop").Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
			NodeName: node, Volumes: []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "disk"}}}},
		}}, metav1.CreateOptions{}))
	}
	attached := func() (nodes []string) {
		list, err := y.client.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{})
		y.must(list, err)
		for i := range list.Items {
			nodes = append(nodes, list.Items[i].Spec.NodeName)
		}
		return nodes
	}
	inUse := func(names ...corev1.UniqueVolumeName) {
		node, err := y.client.CoreV1().Nodes().Get(ctx, "n1", metav1.GetOptions{})
		y.must(node, err)
		node.Status.VolumesInUse = names
		y.must(y.client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{}))
	}
	pod("a", "n1")
	y.eventually("it is attached", func() bool { n := attached(); return len(n) == 1 && n[0] == "n1" })
	inUse("kubernetes.io/csi/csi.example.com^vol")
	pod("b", "n2")
	y.eventually("a second node is refused", func() bool {
		list, err := y.client.CoreV1().Events("shop").List(ctx, metav1.ListOptions{})
		y.must(list, err)
		for i := range list.Items {
			if list.Items[i].Reason == "FailedAttachVolume" {
				return true
			}
		}
		return false
	})
	if err := y.client.CoreV1().Pods("shop").Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	pod("c", "n1")
	if n := attached(); len(n) != 1 || n[0] != "n1" {
		t.Errorf("attached to %v while the first node has it mounted", n)
	}
	if err := y.client.CoreV1().Pods("shop").Delete(ctx, "c", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	inUse()
	y.eventually("it moves when the first node has let go", func() bool { n := attached(); return len(n) == 1 && n[0] == "n2" })
}
