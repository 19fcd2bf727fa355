package localpath

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	volumehelper "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"
)

// What a directory cannot be is refused with the field and what to write instead.
func TestWhatADirectoryCannotBe(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*corev1.PersistentVolumeClaim, *storagev1.StorageClass){
		"":             func(*corev1.PersistentVolumeClaim, *storagev1.StorageClass) {},
		"mountOptions": func(_ *corev1.PersistentVolumeClaim, c *storagev1.StorageClass) { c.MountOptions = []string{"noatime"} },
		"parameters": func(_ *corev1.PersistentVolumeClaim, c *storagev1.StorageClass) {
			c.Parameters = map[string]string{"nodePath": "/data"}
		},
		"ReadWriteMany": func(c *corev1.PersistentVolumeClaim, _ *storagev1.StorageClass) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
		},
		"volumeMode": func(c *corev1.PersistentVolumeClaim, _ *storagev1.StorageClass) {
			c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
		},
		"dataSource": func(c *corev1.PersistentVolumeClaim, _ *storagev1.StorageClass) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "other"}
		},
		"selector": func(c *corev1.PersistentVolumeClaim, _ *storagev1.StorageClass) {
			c.Spec.Selector = &metav1.LabelSelector{}
		},
		"WaitForFirstConsumer": func(c *corev1.PersistentVolumeClaim, _ *storagev1.StorageClass) {
			delete(c.Annotations, volumehelper.AnnSelectedNode)
		},
		"not one of provisioner": func(_ *corev1.PersistentVolumeClaim, c *storagev1.StorageClass) { c.Provisioner = "example.com/other" },
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			claim := &corev1.PersistentVolumeClaim{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "data", UID: "uid", Annotations: map[string]string{volumehelper.AnnSelectedNode: "node"}},
				Spec:       corev1.PersistentVolumeClaimSpec{StorageClassName: ptr.To("own"), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}},
			}
			class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "own"}, Provisioner: Provisioner}
			change(claim, class)
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
				Name: "node", Labels: map[string]string{corev1.LabelHostname: "node"}, Annotations: map[string]string{DirAnnotation: "/volumes"},
			}}
			classes, nodes := cache.NewIndexer(cache.MetaNamespaceKeyFunc, nil), cache.NewIndexer(cache.MetaNamespaceKeyFunc, nil)
			if err := errors.Join(classes.Add(class), nodes.Add(node)); err != nil {
				t.Fatal(err)
			}
			c := &Controller{classes: storagelisters.NewStorageClassLister(classes), nodes: corelisters.NewNodeLister(nodes)}
			made, err := c.volumeFor(claim)
			var refused *refusal
			switch {
			case want == "":
				if err != nil || made.Spec.Local.Path != "/volumes/pvc-uid" {
					t.Errorf("made %+v: %v", made, err)
				}
			case !errors.As(err, &refused) || !strings.Contains(refused.why, want):
				t.Errorf("%v does not name %s", err, want)
			}
		})
	}
}
