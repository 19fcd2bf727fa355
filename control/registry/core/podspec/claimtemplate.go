package podspec

import (
	"reflect"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// claimTemplate checks the template of the claim that is made for an ephemeral volume.
func (v *validator) claimTemplate(template *corev1.PersistentVolumeClaimTemplate, path *field.Path) {
	meta := path.Child("metadata")
	v.add(apivalidation.ValidateAnnotations(template.Annotations, meta.Child("annotations"))...)
	v.add(metavalidation.ValidateLabels(template.Labels, meta.Child("labels"))...)
	v.templateMeta(template.ObjectMeta, meta)
	v.claimSpec(&template.Spec, path.Child("spec"))
}

// ValidateClaimSpec checks what a PersistentVolumeClaim asks for.
func ValidateClaimSpec(spec *corev1.PersistentVolumeClaimSpec, path *field.Path) field.ErrorList {
	var v findings
	v.claimSpec(spec, path)
	return v.list
}

func (f *findings) claimSpec(spec *corev1.PersistentVolumeClaimSpec, path *field.Path) {
	if len(spec.AccessModes) == 0 {
		f.required(path.Child("accessModes"), "at least 1 access mode is required")
	}
	f.add(metavalidation.ValidateLabelSelector(spec.Selector, metavalidation.LabelSelectorValidationOptions{}, path.Child("selector"))...)
	f.accessModes(spec.AccessModes, path.Child("accessModes"))

	size := path.Child("resources").Key(string(corev1.ResourceStorage))
	if storage, found := spec.Resources.Requests[corev1.ResourceStorage]; !found {
		f.required(size, "")
	} else if storage.Sign() <= 0 {
		f.invalid(size, storage.String(), "must be greater than zero")
	}
	f.className(spec.StorageClassName, path.Child("storageClassName"))
	if spec.VolumeMode != nil {
		oneOf(f, path.Child("volumeMode"), *spec.VolumeMode, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
	}
	f.dataSources(spec, path)
	f.className(spec.VolumeAttributesClassName, path.Child("volumeAttributesClassName"))
}

func (f *findings) accessModes(modes []corev1.PersistentVolumeAccessMode, path *field.Path) {
	alone, shared := false, false
	for _, mode := range modes {
		switch mode {
		case corev1.ReadWriteOncePod:
			alone = true
		case corev1.ReadWriteOnce, corev1.ReadOnlyMany, corev1.ReadWriteMany:
			shared = true
		default:
			oneOf(f, path, mode, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod)
		}
	}
	if alone && shared {
		f.forbidden(path, "may not use ReadWriteOncePod with other access modes")
	}
}

func (f *findings) className(name *string, path *field.Path) {
	if name != nil && *name != "" {
		f.invalidEach(path, *name, apivalidation.NameIsDNSSubdomain(*name, false))
	}
}

// dataSources checks what the volume is filled from. The older field is a shadow of the newer one.
func (f *findings) dataSources(spec *corev1.PersistentVolumeClaimSpec, path *field.Path) {
	source, ref := spec.DataSource, spec.DataSourceRef
	if source != nil {
		f.dataSource(source.APIGroup, source.Kind, source.Name, path.Child("dataSource"))
	}
	if ref == nil {
		return
	}
	f.dataSource(ref.APIGroup, ref.Kind, ref.Name, path.Child("dataSourceRef"))
	elsewhere := ref.Namespace != nil && *ref.Namespace != ""
	if elsewhere {
		f.invalidEach(path.Child("dataSourceRef", "namespace"), *ref.Namespace, apivalidation.ValidateNamespaceName(*ref.Namespace, false))
	}
	switch {
	case source == nil:
	case elsewhere:
		f.invalid(path, path.Child("dataSource"), "may not be specified when dataSourceRef.namespace is specified")
	case !reflect.DeepEqual(source.APIGroup, ref.APIGroup) || source.Kind != ref.Kind || source.Name != ref.Name:
		f.invalid(path, path.Child("dataSource"), "must match dataSourceRef")
	}
}

func (f *findings) dataSource(apiGroup *string, kind, name string, path *field.Path) {
	if name == "" {
		f.required(path.Child("name"), "")
	}
	if kind == "" {
		f.required(path.Child("kind"), "")
	}
	if apiGroup != nil && *apiGroup != "" {
		f.invalidEach(path.Child("apiGroup"), *apiGroup, validation.IsDNS1123Subdomain(*apiGroup))
	} else if kind != "PersistentVolumeClaim" {
		f.invalid(path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup")
	}
}
