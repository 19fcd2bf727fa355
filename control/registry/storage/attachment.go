package storage

import (
	"context"
	"math"

	storagev1 "k8s.io/api/storage/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

// Limits of what an attacher reports, in bytes.
const (
	maxAttachmentMetadata = 256 * 1024
	maxErrorMessage       = 1024
)

// volumeAttachmentKind serves VolumeAttachments.
func volumeAttachmentKind() registry.Kind[*storagev1.VolumeAttachment] {
	spec := storagev1.VolumeAttachmentSpec{}.SwaggerDoc()
	return registry.Kind[*storagev1.VolumeAttachment]{
		Version: storagev1.SchemeGroupVersion, Plural: "volumeattachments", Singular: "volumeattachment", ClusterScoped: true,
		New:                   func() *storagev1.VolumeAttachment { return &storagev1.VolumeAttachment{} },
		NewList:               func() runtime.Object { return &storagev1.VolumeAttachmentList{} },
		Spec:                  func(a *storagev1.VolumeAttachment) any { return &a.Spec },
		Status:                func(a *storagev1.VolumeAttachment) any { return &a.Status },
		ConditionalUpdateOnly: true,
		ValidateName:          apivalidation.NameIsDNSSubdomain,
		Validate:              func(_ context.Context, a *storagev1.VolumeAttachment) field.ErrorList { return validateAttachment(a) },
		ValidateUpdate: func(_ context.Context, a, old *storagev1.VolumeAttachment) field.ErrorList {
			return apivalidation.ValidateImmutableField(a.Spec, old.Spec, field.NewPath("spec"))
		},
		PrepareStatus: func(_ context.Context, a, old *storagev1.VolumeAttachment) {
			metav1.ResetObjectMetaForStatus(&a.ObjectMeta, &old.ObjectMeta)
		},
		ValidateStatus: func(_ context.Context, a, _ *storagev1.VolumeAttachment) field.ErrorList {
			return validateAttachment(a)
		},
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(),
			{Name: "Attacher", Type: "string", Format: "name", Description: spec["attacher"]},
			registry.Column("PV", "string", storagev1.VolumeAttachmentSource{}.SwaggerDoc()["persistentVolumeName"]),
			registry.Column("Node", "string", spec["nodeName"]),
			registry.Column("Attached", "boolean", storagev1.VolumeAttachmentStatus{}.SwaggerDoc()["attached"]),
			registry.AgeColumn(),
		},
		Row: func(a *storagev1.VolumeAttachment) []any {
			return []any{a.Name, a.Spec.Attacher, ptr.Deref(a.Spec.Source.PersistentVolumeName, ""), a.Spec.NodeName, a.Status.Attached, registry.Age(a.CreationTimestamp)}
		},
	}
}

func validateAttachment(a *storagev1.VolumeAttachment) field.ErrorList {
	spec := field.NewPath("spec")
	errs := podspec.ValidateCSIDriverName(a.Spec.Attacher, spec.Child("attacher"))
	errs = append(errs, validateSource(&a.Spec.Source, spec.Child("source"))...)
	for _, message := range apivalidation.NameIsDNSSubdomain(a.Spec.NodeName, false) {
		errs = append(errs, field.Invalid(spec.Child("nodeName"), a.Spec.NodeName, message))
	}
	status := field.NewPath("status")
	size := 0
	for key, value := range a.Status.AttachmentMetadata {
		size += len(key) + len(value)
	}
	if size > maxAttachmentMetadata {
		errs = append(errs, field.TooLong(status.Child("attachmentMetadata"), "" /* not echoed */, maxAttachmentMetadata))
	}
	errs = append(errs, validateVolumeError(a.Status.AttachError, status.Child("attachError"))...)
	return append(errs, validateVolumeError(a.Status.DetachError, status.Child("detachError"))...)
}

func validateSource(s *storagev1.VolumeAttachmentSource, path *field.Path) field.ErrorList {
	const one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
	switch name := s.PersistentVolumeName; {
	case s.InlineVolumeSpec == nil && name == nil:
		return field.ErrorList{field.Required(path, one)}
	case s.InlineVolumeSpec != nil && name != nil:
		return field.ErrorList{field.Forbidden(path, one)}
	case name == nil:
		return podspec.ValidatePersistentVolumeSpec(s.InlineVolumeSpec, "", true, path.Child("inlineVolumeSpec"))
	case *name == "":
		return field.ErrorList{field.Required(path.Child("persistentVolumeName"), "must specify non empty persistentVolumeName")}
	default:
		var errs field.ErrorList
		for _, message := range apivalidation.NameIsDNSSubdomain(*name, false) {
			errs = append(errs, field.Invalid(field.NewPath("spec.source.persistentVolumeName"), *name, message))
		}
		return errs
	}
}

func validateVolumeError(e *storagev1.VolumeError, path *field.Path) field.ErrorList {
	if e == nil {
		return nil
	}
	var errs field.ErrorList
	if len(e.Message) > maxErrorMessage {
		errs = append(errs, field.TooLong(path.Child("message"), "" /* not echoed */, maxErrorMessage))
	}
	if e.ErrorCode != nil && *e.ErrorCode < 0 {
		errs = append(errs, field.Invalid(path.Child("errorCode"), *e.ErrorCode, validation.InclusiveRangeError(0, math.MaxInt32)))
	}
	return errs
}
