package storage

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

// Limits of a class's parameters.
const (
	maxParameters     = 512
	maxParametersSize = 256 * 1024
)

// storageClassKind serves StorageClasses.
func storageClassKind() registry.Kind[*storagev1.StorageClass] {
	doc := storagev1.StorageClass{}.SwaggerDoc()
	return registry.Kind[*storagev1.StorageClass]{
		Version: storagev1.SchemeGroupVersion, Plural: "storageclasses", Singular: "storageclass", ShortNames: []string{"sc"}, ClusterScoped: true,
		New:     func() *storagev1.StorageClass { return &storagev1.StorageClass{} },
		NewList: func() runtime.Object { return &storagev1.StorageClassList{} },
		Default: func(c *storagev1.StorageClass) {
			c.ReclaimPolicy = ptr.To(ptr.Deref(c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete))
			c.VolumeBindingMode = ptr.To(ptr.Deref(c.VolumeBindingMode, storagev1.VolumeBindingImmediate))
		},
		ValidateName: apivalidation.NameIsDNSSubdomain,
		Validate:     func(_ context.Context, c *storagev1.StorageClass) field.ErrorList { return validateClass(c) },
		ValidateUpdate: func(_ context.Context, c, old *storagev1.StorageClass) field.ErrorList {
			return validateClassUpdate(c, old)
		},
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(),
			registry.Column("Provisioner", "string", doc["provisioner"]),
			registry.Column("ReclaimPolicy", "string", doc["reclaimPolicy"]),
			registry.Column("VolumeBindingMode", "string", doc["volumeBindingMode"]),
			registry.Column("AllowVolumeExpansion", "string", doc["allowVolumeExpansion"]),
			registry.AgeColumn(),
		},
		Row: func(c *storagev1.StorageClass) []any {
			return []any{
				c.Name, c.Provisioner, string(ptr.Deref(c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)),
				string(ptr.Deref(c.VolumeBindingMode, storagev1.VolumeBindingImmediate)), ptr.Deref(c.AllowVolumeExpansion, false), registry.Age(c.CreationTimestamp),
			}
		},
	}
}

func validateClass(c *storagev1.StorageClass) field.ErrorList {
	errs := validateProvisioner(c.Provisioner, field.NewPath("provisioner"))
	errs = append(errs, validateParameters(c.Parameters, true, field.NewPath("parameters"))...)
	if policy := c.ReclaimPolicy; policy != nil && *policy != "" && *policy != corev1.PersistentVolumeReclaimDelete && *policy != corev1.PersistentVolumeReclaimRetain {
		errs = append(errs, field.NotSupported(field.NewPath("reclaimPolicy"), *policy,
			[]corev1.PersistentVolumeReclaimPolicy{corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain}))
	}
	switch path := field.NewPath("volumeBindingMode"); {
	case c.VolumeBindingMode == nil:
		errs = append(errs, field.Required(path, ""))
	case *c.VolumeBindingMode != storagev1.VolumeBindingImmediate && *c.VolumeBindingMode != storagev1.VolumeBindingWaitForFirstConsumer:
		errs = append(errs, field.NotSupported(path, *c.VolumeBindingMode,
			[]storagev1.VolumeBindingMode{storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer}))
	}
	path := field.NewPath("allowedTopologies")
	for i := range c.AllowedTopologies {
		errs = append(errs, podspec.ValidateTopologyTerm(&c.AllowedTopologies[i], path.Index(i))...)
		for j := range i {
			if apiequality.Semantic.DeepEqual(c.AllowedTopologies[i], c.AllowedTopologies[j]) {
				errs = append(errs, field.Duplicate(path.Index(i).Child("matchLabelExpressions"), ""))
			}
		}
	}
	return errs
}

func validateProvisioner(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	for _, message := range validation.IsQualifiedName(strings.ToLower(name)) {
		errs = append(errs, field.Invalid(path, strings.ToLower(name), message))
	}
	return errs
}

func validateParameters(parameters map[string]string, mayBeEmpty bool, path *field.Path) field.ErrorList {
	if len(parameters) > maxParameters {
		return field.ErrorList{field.TooLong(path, "" /* not echoed */, maxParameters)}
	}
	var errs field.ErrorList
	size := 0
	for key, value := range parameters {
		if key == "" {
			errs = append(errs, field.Invalid(path, key, "field can not be empty."))
		}
		size += len(key) + len(value)
	}
	if size > maxParametersSize {
		errs = append(errs, field.TooLong(path, "" /* not echoed */, maxParametersSize))
	}
	if !mayBeEmpty && len(parameters) == 0 {
		errs = append(errs, field.Required(path, "must contain at least one key/value pair"))
	}
	return errs
}

func validateClassUpdate(c, old *storagev1.StorageClass) field.ErrorList {
	errs := apivalidation.ValidateImmutableField(c.Parameters, old.Parameters, field.NewPath("parameters"))
	errs = append(errs, apivalidation.ValidateImmutableField(c.Provisioner, old.Provisioner, field.NewPath("provisioner"))...)
	errs = append(errs, apivalidation.ValidateImmutableField(c.ReclaimPolicy, old.ReclaimPolicy, field.NewPath("reclaimPolicy"))...)
	return append(errs, apivalidation.ValidateImmutableField(c.VolumeBindingMode, old.VolumeBindingMode, field.NewPath("volumeBindingMode"))...)
}

// storageClasses prints which class is the default, which only a list can tell.
type storageClasses struct {
	*registry.Store[*storagev1.StorageClass]
}

func markDefaultClass(storages registry.Storages) {
	if store, ok := storages["storageclasses"].(*registry.Store[*storagev1.StorageClass]); ok {
		storages["storageclasses"] = &storageClasses{store}
	}
}

// ConvertToTable implements rest.TableConvertor.
func (s *storageClasses) ConvertToTable(ctx context.Context, object, options runtime.Object) (*metav1.Table, error) {
	table, err := s.Store.ConvertToTable(ctx, object, options)
	list, isList := object.(*storagev1.StorageClassList)
	if err != nil || !isList {
		return table, err
	}
	classes := make([]*storagev1.StorageClass, len(list.Items))
	for i := range list.Items {
		classes[i] = &list.Items[i]
	}
	if chosen := DefaultClass(classes); chosen != nil {
		for i := range table.Rows {
			if cells := table.Rows[i].Cells; cells[0] == chosen.Name {
				cells[0] = fmt.Sprintf("%s (default)", chosen.Name)
			}
		}
	}
	return table, nil
}

var _ rest.TableConvertor = (*storageClasses)(nil)

// Annotations that make a class the default one.
const (
	isDefaultAnnotation     = "storageclass.kubernetes.io/is-default-class"
	betaIsDefaultAnnotation = "storageclass.beta.kubernetes.io/is-default-class"
)

func isDefault(c *storagev1.StorageClass) bool {
	return c.Annotations[isDefaultAnnotation] == "true" || c.Annotations[betaIsDefaultAnnotation] == "true"
}

// DefaultClass returns the class that claims without one get: of those marked, the newest; of two
// of the same second the first by name. Nil when none is marked.
func DefaultClass(classes []*storagev1.StorageClass) *storagev1.StorageClass {
	var chosen *storagev1.StorageClass
	for _, c := range classes {
		if !isDefault(c) {
			continue
		}
		if chosen == nil || c.CreationTimestamp.After(chosen.CreationTimestamp.Time) ||
			(c.CreationTimestamp.Equal(&chosen.CreationTimestamp) && c.Name < chosen.Name) {
			chosen = c
		}
	}
	return chosen
}

// volumeAttributesClassKind serves VolumeAttributesClasses.
func volumeAttributesClassKind() registry.Kind[*storagev1.VolumeAttributesClass] {
	return registry.Kind[*storagev1.VolumeAttributesClass]{
		Version: storagev1.SchemeGroupVersion, Plural: "volumeattributesclasses", Singular: "volumeattributesclass", ShortNames: []string{"vac"}, ClusterScoped: true,
		New:          func() *storagev1.VolumeAttributesClass { return &storagev1.VolumeAttributesClass{} },
		NewList:      func() runtime.Object { return &storagev1.VolumeAttributesClassList{} },
		ValidateName: apivalidation.NameIsDNSSubdomain,
		Validate: func(_ context.Context, c *storagev1.VolumeAttributesClass) field.ErrorList {
			return append(validateProvisioner(c.DriverName, field.NewPath("driverName")), validateParameters(c.Parameters, false, field.NewPath("parameters"))...)
		},
		ValidateUpdate: func(_ context.Context, c, old *storagev1.VolumeAttributesClass) field.ErrorList {
			var errs field.ErrorList
			if c.DriverName != old.DriverName {
				errs = append(errs, field.Forbidden(field.NewPath("driverName"), "updates to driverName are forbidden."))
			}
			if !apiequality.Semantic.DeepEqual(c.Parameters, old.Parameters) {
				errs = append(errs, field.Forbidden(field.NewPath("parameters"), "updates to parameters are forbidden."))
			}
			return errs
		},
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(), registry.Column("DriverName", "string", storagev1.VolumeAttributesClass{}.SwaggerDoc()["driverName"]), registry.AgeColumn(),
		},
		Row: func(c *storagev1.VolumeAttributesClass) []any {
			return []any{c.Name, c.DriverName, registry.Age(c.CreationTimestamp)}
		},
	}
}
