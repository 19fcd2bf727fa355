package scheduler

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// storage is a binder whose listers hold the objects.
func storage(t *testing.T, objects ...runtime.Object) *volumeBinder {
	t.Helper()
	client := fake.NewClientset()
	factory := informers.NewSharedInformerFactory(client, 0)
	b := newVolumeBinder(client, factory)
	core, classes := factory.Core().V1(), factory.Storage().V1()
	for _, object := range objects {
		var indexer cache.Indexer
		switch object.(type) {
		case *corev1.PersistentVolumeClaim:
			indexer = core.PersistentVolumeClaims().Informer().GetIndexer()
		case *corev1.PersistentVolume:
			indexer = core.PersistentVolumes().Informer().GetIndexer()
		case *storagev1.StorageClass:
			indexer = classes.StorageClasses().Informer().GetIndexer()
		case *storagev1.CSINode:
			indexer = classes.CSINodes().Informer().GetIndexer()
		}
		if err := indexer.Add(object); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func class(name, provisioner string, mode storagev1.VolumeBindingMode) *storagev1.StorageClass {
	return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, VolumeBindingMode: &mode}
}

func claimOf(class, volume string, change func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "data", UID: "uid"},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class, VolumeName: volume, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
	if volume != "" {
		c.Annotations = map[string]string{"pv.kubernetes.io/bind-completed": "yes"}
	}
	if change != nil {
		change(c)
	}
	return c
}

func volumeOn(name, class, host string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		StorageClassName: class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
		NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{host}}},
		}}}},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "csi.example.com", VolumeHandle: name}},
	}, Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable}}
}

func withClaim(pod *corev1.Pod) {
	pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
}

func TestPodsGoWhereTheirVolumesAre(t *testing.T) {
	t.Parallel()
	nodes := []*corev1.Node{makeNode("a"), makeNode("b")}
	later := class("later", "example.com/disk", storagev1.VolumeBindingWaitForFirstConsumer)
	static := class("static", "kubernetes.io/no-provisioner", storagev1.VolumeBindingWaitForFirstConsumer)
	atOnce := class("at-once", "example.com/disk", storagev1.VolumeBindingImmediate)
	alone := func(c *corev1.PersistentVolumeClaim) {
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	}
	for name, tc := range map[string]struct {
		objects []runtime.Object
		others  []*corev1.Pod
		node    string
		why     string
	}{
		"a claim that is not there":            {why: `0/2 nodes are available: persistentvolumeclaim "data" not found.`},
		"a claim that is bound before its pod": {objects: []runtime.Object{atOnce, claimOf("at-once", "", nil)}, why: "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."},
		"a volume on b":                        {objects: []runtime.Object{later, claimOf("later", "v", nil), volumeOn("v", "later", "b")}, node: "b"},
		"a volume on no node":                  {objects: []runtime.Object{later, claimOf("later", "v", nil), volumeOn("v", "later", "c")}, why: "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity."},
		"a volume that is gone":                {objects: []runtime.Object{later, claimOf("later", "v", nil)}, why: "0/2 nodes are available: 2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)."},
		"a free volume on b":                   {objects: []runtime.Object{static, claimOf("static", "", nil), volumeOn("v", "static", "b")}, node: "b"},
		"no free volume":                       {objects: []runtime.Object{static, claimOf("static", "", nil)}, why: "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."},
		"a volume to be made where it was said": {objects: []runtime.Object{later, claimOf("later", "", func(c *corev1.PersistentVolumeClaim) {
			c.Annotations = map[string]string{"volume.kubernetes.io/selected-node": "b"}
		})}, node: "b"},
		"a claim that another pod has alone": {
			objects: []runtime.Object{later, claimOf("later", "v", alone), volumeOn("v", "later", "b")}, others: []*corev1.Pod{makePod("other", on("b"), withClaim)},
			why: "0/2 nodes are available: 2 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod.",
		},
		"a node with as many volumes as it can have": {
			objects: []runtime.Object{later, claimOf("later", "v", nil), volumeOn("v", "later", "b"), &storagev1.CSINode{
				ObjectMeta: metav1.ObjectMeta{Name: "b"},
				Spec:       storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: "csi.example.com", Allocatable: &storagev1.VolumeNodeResources{Count: ptr.To[int32](0)}}}},
			}},
			why: "0/2 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity, 1 node(s) exceed max volume count.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := storage(t, tc.objects...)
			d := newDecider(noSelector, &b.Volumes)
			node, why := d.decide(info(t, makePod("p", withClaim)), snapshotOf(t, nodes, tc.others...), nil)
			if node != tc.node {
				t.Errorf("node %q, want %q", node, tc.node)
			}
			if why != nil && strings.TrimSpace(why.message("")) != tc.why {
				t.Errorf("message %q, want %q", why.message(""), tc.why)
			}
		})
	}
}

func TestTwoPodsDoNotGetOneVolume(t *testing.T) {
	t.Parallel()
	second := claimOf("static", "", func(c *corev1.PersistentVolumeClaim) { c.Name, c.UID = "more", types.UID("other") })
	b := storage(t, class("static", "kubernetes.io/no-provisioner", storagev1.VolumeBindingWaitForFirstConsumer),
		claimOf("static", "", nil), second, volumeOn("v", "static", "a"))
	nodes := []*corev1.Node{makeNode("a")}
	decided := b.assume(makePod("p", withClaim), nodes[0])
	if decided == nil || len(decided.match.Static) != 1 {
		t.Fatalf("decided %+v", decided)
	}
	rival := makePod("q", withClaim)
	rival.Spec.Volumes[0].PersistentVolumeClaim.ClaimName = "more"
	d := newDecider(noSelector, &b.Volumes)
	if node, _ := d.decide(info(t, rival), snapshotOf(t, nodes), nil); node != "" {
		t.Errorf("the second pod goes to %s for a volume that the first has", node)
	}
	b.forget(decided)
	if node, _ := d.decide(info(t, rival), snapshotOf(t, nodes), nil); node != "a" {
		t.Errorf("the volume that was given back is not found: node %q", node)
	}
}
