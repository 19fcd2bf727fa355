package core

import (
	"context"
	"fmt"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	volumehelper "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

// persistentVolumeClaimKind serves PersistentVolumeClaims.
func persistentVolumeClaimKind() registry.Kind[*corev1.PersistentVolumeClaim] {
	spec, status := corev1.PersistentVolumeClaimSpec{}.SwaggerDoc(), corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()
	return registry.Kind[*corev1.PersistentVolumeClaim]{
		Version: corev1.SchemeGroupVersion, Plural: "persistentvolumeclaims", Singular: "persistentvolumeclaim", ShortNames: []string{"pvc"},
		New:          func() *corev1.PersistentVolumeClaim { return &corev1.PersistentVolumeClaim{} },
		NewList:      func() runtime.Object { return &corev1.PersistentVolumeClaimList{} },
		Default:      defaultClaim,
		Spec:         func(c *corev1.PersistentVolumeClaim) any { return &c.Spec },
		Status:       func(c *corev1.PersistentVolumeClaim) any { return &c.Status },
		ValidateName: apivalidation.NameIsDNSSubdomain,
		PrepareForCreate: func(_ context.Context, c *corev1.PersistentVolumeClaim) {
			// The cleared status reads as the default says.
			c.Status.Phase = corev1.ClaimPending
			dropForeignSource(&c.Spec, nil)
			dropUnknownSource(&c.Spec, nil)
			joinSources(&c.Spec)
		},
		PrepareForUpdate: func(_ context.Context, c, old *corev1.PersistentVolumeClaim) {
			dropForeignSource(&c.Spec, &old.Spec)
			dropUnknownSource(&c.Spec, &old.Spec)
			joinSources(&c.Spec)
		},
		Validate: func(_ context.Context, c *corev1.PersistentVolumeClaim) field.ErrorList {
			return podspec.ValidateClaimSpec(&c.Spec, field.NewPath("spec"))
		},
		ValidateUpdate: func(_ context.Context, c, old *corev1.PersistentVolumeClaim) field.ErrorList {
			return validateClaimUpdate(c, old)
		},
		Warnings:      func(_ context.Context, c, _ *corev1.PersistentVolumeClaim) []string { return claimWarnings(c) },
		PrepareStatus: func(_ context.Context, c, _ *corev1.PersistentVolumeClaim) { c.Status.HealthStatus = nil },
		ValidateStatus: func(_ context.Context, c, _ *corev1.PersistentVolumeClaim) field.ErrorList {
			return validateClaimStatus(c)
		},
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(),
			registry.Column("Status", "string", status["phase"]),
			registry.Column("Volume", "string", spec["volumeName"]),
			registry.Column("Capacity", "string", status["capacity"]),
			registry.Column("Access Modes", "string", status["accessModes"]),
			registry.Column("StorageClass", "string", "StorageClass of the pvc"),
			registry.Column("VolumeAttributesClass", "string", "VolumeAttributesClass of the pvc"),
			registry.AgeColumn(),
			registry.Wide(registry.Column("VolumeMode", "string", spec["volumeMode"])),
		},
		Row: claimRow,
	}
}

func defaultClaim(c *corev1.PersistentVolumeClaim) {
	if c.Status.Phase == "" {
		c.Status.Phase = corev1.ClaimPending
	}
	if c.Spec.VolumeMode == nil {
		c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeFilesystem)
	}
	for _, list := range []corev1.ResourceList{c.Spec.Resources.Limits, c.Spec.Resources.Requests, c.Status.Capacity, c.Status.AllocatedResources} {
		roundUp(list)
	}
}

// dropForeignSource drops a source in another namespace, which only an alpha feature allows.
func dropForeignSource(spec, old *corev1.PersistentVolumeClaimSpec) {
	if ref := spec.DataSourceRef; ref != nil && ptr.Deref(ref.Namespace, "") != "" && (old == nil || old.DataSourceRef == nil) {
		spec.DataSourceRef = nil
	}
}

// dropUnknownSource drops what the older of the two fields never took (KEP 1495).
func dropUnknownSource(spec, old *corev1.PersistentVolumeClaimSpec) {
	if spec.DataSourceRef != nil || spec.DataSource == nil || (old != nil && (old.DataSource != nil || old.DataSourceRef != nil)) {
		return
	}
	switch group := ptr.Deref(spec.DataSource.APIGroup, ""); {
	case spec.DataSource.Kind == "PersistentVolumeClaim" && group == "":
	case spec.DataSource.Kind == "VolumeSnapshot" && group == "snapshot.storage.k8s.io":
	default:
		spec.DataSource = nil
	}
}

// joinSources lets both fields say the same when only one is set.
func joinSources(spec *corev1.PersistentVolumeClaimSpec) {
	source, ref := spec.DataSource, spec.DataSourceRef
	switch {
	case source != nil && ref == nil:
		spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: source.APIGroup, Kind: source.Kind, Name: source.Name}
	case ref != nil && source == nil && ptr.Deref(ref.Namespace, "") == "":
		spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: ref.APIGroup, Kind: ref.Kind, Name: ref.Name}
	}
}

// validateClaimUpdate: a claim is fixed but for its volume, which is named once, its class when it
// had none, and, once bound, the size and attributes class.
func validateClaimUpdate(c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	var errs field.ErrorList
	now, was := c.DeepCopy(), old.DeepCopy()
	joinSources(&was.Spec)
	if was.Spec.VolumeName == "" {
		was.Spec.VolumeName = now.Spec.VolumeName
	}
	annotation, annotated := old.Annotations[corev1.BetaStorageClassAnnotation]
	newAnnotation, stillAnnotated := c.Annotations[corev1.BetaStorageClassAnnotation]
	named := old.Spec.StorageClassName == nil && c.Spec.StorageClassName != nil
	if named && annotated && *c.Spec.StorageClassName == annotation && (!stillAnnotated || newAnnotation == annotation) {
		now.Spec.StorageClassName = nil
	} else {
		if newAnnotation != annotation {
			errs = append(errs, field.Invalid(field.NewPath("metadata").Child("annotations").Key(corev1.BetaStorageClassAnnotation), newAnnotation, "field is immutable"))
		}
		if named && (!annotated || *c.Spec.StorageClassName == annotation) {
			now.Spec.StorageClassName = nil
		}
	}
	if c.Status.Phase == corev1.ClaimBound {
		if now.Spec.Resources.Requests != nil {
			now.Spec.Resources.Requests[corev1.ResourceStorage] = old.Spec.Resources.Requests[corev1.ResourceStorage]
		}
		now.Spec.VolumeAttributesClassName = was.Spec.VolumeAttributesClassName
	}
	spec := field.NewPath("spec")
	if !apiequality.Semantic.DeepEqual(now.Spec, was.Spec) {
		errs = append(errs, field.Forbidden(spec,
			"spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n"+cmp.Diff(was.Spec, now.Spec)))
	}
	size, before, given := c.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage], old.Status.Capacity[corev1.ResourceStorage]
	if size.Cmp(before) < 0 && size.Cmp(given) <= 0 {
		errs = append(errs, field.Forbidden(spec.Child("resources", "requests", "storage"), "field can not be less than status.capacity"))
	}
	errs = append(errs, apivalidation.ValidateImmutableField(c.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))...)
	if old.Status.CurrentVolumeAttributesClassName != nil && old.Spec.VolumeAttributesClassName != nil {
		switch path, class := spec.Child("volumeAttributesClassName"), c.Spec.VolumeAttributesClassName; {
		case class == nil:
			errs = append(errs, field.Forbidden(path, "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil"))
		case *class == "" && *old.Spec.VolumeAttributesClassName != "":
			errs = append(errs, field.Forbidden(path, "update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil"))
		}
	}
	return errs
}

// resizeStates are how far the expansion of a volume may be.
var resizeStates = []corev1.ClaimResourceStatus{
	corev1.PersistentVolumeClaimControllerResizeInProgress, corev1.PersistentVolumeClaimControllerResizeInfeasible,
	corev1.PersistentVolumeClaimNodeResizePending, corev1.PersistentVolumeClaimNodeResizeInProgress, corev1.PersistentVolumeClaimNodeResizeInfeasible,
}

func validateClaimStatus(c *corev1.PersistentVolumeClaim) field.ErrorList {
	errs := needsVersion(c)
	if len(c.Spec.AccessModes) == 0 {
		errs = append(errs, field.Required(field.NewPath("Spec", "accessModes"), ""))
	}
	status := field.NewPath("status")
	check := func(list corev1.ResourceList, name string) {
		for key, amount := range list {
			if amount.Cmp(resource.Quantity{}) < 0 {
				errs = append(errs, field.Invalid(status.Child(name).Key(string(key)), amount.Value(), "must be a valid resource quantity"))
			}
		}
	}
	check(c.Status.Capacity, "capacity")
	check(c.Status.AllocatedResources, "allocatedResources")
	for key, state := range c.Status.AllocatedResourceStatuses {
		if key != corev1.ResourceStorage {
			errs = append(errs, field.NotSupported(status.Child("allocatedResourceStatuses"), key, []corev1.ResourceName{corev1.ResourceStorage}))
		}
		known := false
		for _, one := range resizeStates {
			known = known || one == state
		}
		if !known {
			errs = append(errs, field.NotSupported(status.Child("allocatedResourceStatuses"), state, resizeStates))
		}
	}
	return errs
}

func claimWarnings(c *corev1.PersistentVolumeClaim) []string {
	var warnings []string
	if _, has := c.Annotations[corev1.BetaStorageClassAnnotation]; has {
		warnings = append(warnings, fmt.Sprintf("%s: %s", field.NewPath("metadata", "annotations").Key(corev1.BetaStorageClassAnnotation),
			`deprecated since v1.8; use "storageClassName" attribute instead`))
	}
	for _, each := range []struct {
		name string
		list corev1.ResourceList
	}{{"requests", c.Spec.Resources.Requests}, {"limits", c.Spec.Resources.Limits}} {
		if amount := each.list[corev1.ResourceStorage]; amount.MilliValue()%1000 != 0 {
			warnings = append(warnings, fmt.Sprintf("%s: fractional byte value %q is invalid, must be an integer",
				field.NewPath("spec", "resources", each.name).Key(string(corev1.ResourceStorage)), amount.String()))
		}
	}
	return warnings
}

func claimRow(c *corev1.PersistentVolumeClaim) []any {
	phase := string(c.Status.Phase)
	if c.DeletionTimestamp != nil {
		phase = "Terminating"
	}
	capacity, access := "", ""
	if c.Spec.VolumeName != "" {
		size := c.Status.Capacity[corev1.ResourceStorage]
		capacity, access = size.String(), modes(c.Status.AccessModes)
	}
	return []any{
		c.Name, phase, c.Spec.VolumeName, capacity, access, volumehelper.GetPersistentVolumeClaimClass(c),
		ptr.Deref(c.Spec.VolumeAttributesClassName, unset), registry.Age(c.CreationTimestamp), string(ptr.Deref(c.Spec.VolumeMode, unset)),
	}
}
