package admission

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/admission"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	volumehelper "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry/storage"
)

// defaultStorageClass gives claims that name no class the default one
// (Kubernetes' DefaultStorageClass).
type defaultStorageClass struct {
	operations
	classes storagelisters.StorageClassLister
	synced  func() bool
}

func newDefaultStorageClass(c Config) *defaultStorageClass {
	informer := c.Informers.Storage().V1().StorageClasses()
	return &defaultStorageClass{on(admission.Create), informer.Lister(), informer.Informer().HasSynced}
}

// Admit implements admission.MutationInterface.
func (p *defaultStorageClass) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	claim, ok := a.GetObject().(*corev1.PersistentVolumeClaim)
	if !ok || !concerns(a, "", "persistentvolumeclaims") || volumehelper.PersistentVolumeClaimHasClass(claim) {
		return nil
	}
	if err := ready(ctx, a, p.synced); err != nil {
		return err
	}
	classes, err := p.classes.List(labels.Everything())
	if err != nil {
		return admission.NewForbidden(a, err)
	}
	if class := storage.DefaultClass(classes); class != nil {
		claim.Spec.StorageClassName = &class.Name
	}
	return nil
}

// protections are the finalizers that keep used objects, by resource.
var protections = map[string]string{
	"persistentvolumes": "kubernetes.io/pv-protection", "persistentvolumeclaims": "kubernetes.io/pvc-protection",
}

// storageInUse protects new volumes and claims (Kubernetes'
// StorageObjectInUseProtection).
type storageInUse struct{ operations }

// Admit implements admission.MutationInterface.
func (storageInUse) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	finalizer, protected := protections[a.GetResource().Resource]
	object, ok := a.GetObject().(metav1.Object)
	if !protected || !ok || !concerns(a, "", a.GetResource().Resource) || slices.Contains(object.GetFinalizers(), finalizer) {
		return nil
	}
	object.SetFinalizers(append(object.GetFinalizers(), finalizer))
	return nil
}

// claimResize lets only claims grow whose class says that volumes can (Kubernetes'
// PersistentVolumeClaimResize).
type claimResize struct {
	operations
	classes storagelisters.StorageClassLister
	synced  func() bool
}

func newClaimResize(c Config) *claimResize {
	informer := c.Informers.Storage().V1().StorageClasses()
	return &claimResize{on(admission.Update), informer.Lister(), informer.Informer().HasSynced}
}

// Validate implements admission.ValidationInterface.
func (p *claimResize) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	claim, ok := a.GetObject().(*corev1.PersistentVolumeClaim)
	old, had := a.GetOldObject().(*corev1.PersistentVolumeClaim)
	if !ok || !had || !concerns(a, "", "persistentvolumeclaims") {
		return nil
	}
	before, now := old.Spec.Resources.Requests[corev1.ResourceStorage], claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if now.Cmp(before) <= 0 {
		return nil
	}
	if old.Status.Phase != corev1.ClaimBound {
		return forbidden(a, "Only bound persistent volume claims can be expanded")
	}
	if err := ready(ctx, a, p.synced); err != nil {
		return err
	}
	var class *storagev1.StorageClass
	if name := volumehelper.GetPersistentVolumeClaimClass(claim); name != "" && name == volumehelper.GetPersistentVolumeClaimClass(old) {
		// A class that is not there allows nothing.
		class, _ = p.classes.Get(name)
	}
	if class == nil || !ptr.Deref(class.AllowVolumeExpansion, false) {
		return forbidden(a, "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize")
	}
	return nil
}
