package core

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-run/skiff/control/registry"
)

// configMapKind serves ConfigMaps.
func configMapKind() registry.Kind[*corev1.ConfigMap] {
	return registry.Kind[*corev1.ConfigMap]{
		Version: corev1.SchemeGroupVersion, Plural: "configmaps", Singular: "configmap", ShortNames: []string{"cm"},
		New:          func() *corev1.ConfigMap { return &corev1.ConfigMap{} },
		NewList:      func() runtime.Object { return &corev1.ConfigMapList{} },
		ValidateName: apivalidation.NameIsDNSSubdomain,
		Validate:     func(_ context.Context, c *corev1.ConfigMap) field.ErrorList { return validateConfigMap(c) },
		ValidateUpdate: func(_ context.Context, c, old *corev1.ConfigMap) field.ErrorList {
			return validateConfigMapUpdate(c, old)
		},
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(),
			registry.Column("Data", "string", corev1.ConfigMap{}.SwaggerDoc()["data"]),
			registry.AgeColumn(),
		},
		Row: func(c *corev1.ConfigMap) []any {
			return []any{c.Name, int64(len(c.Data) + len(c.BinaryData)), registry.Age(c.CreationTimestamp)}
		},
	}
}

func validateConfigMap(c *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	size := 0
	checkKey := func(path *field.Path, key string) {
		for _, message := range validation.IsConfigMapKey(key) {
			errs = append(errs, field.Invalid(path.Key(key), key, message))
		}
	}
	for key, value := range c.Data {
		checkKey(field.NewPath("data"), key)
		if _, both := c.BinaryData[key]; both {
			errs = append(errs, field.Invalid(field.NewPath("data").Key(key), key, "duplicate of key present in binaryData"))
		}
		size += len(value)
	}
	for key, value := range c.BinaryData {
		checkKey(field.NewPath("binaryData"), key)
		size += len(value)
	}
	if size > corev1.MaxSecretSize {
		// An empty path: the limit is of the whole object.
		errs = append(errs, field.TooLong(field.NewPath(""), "" /* not echoed */, corev1.MaxSecretSize))
	}
	return errs
}

func validateConfigMapUpdate(c, old *corev1.ConfigMap) field.ErrorList {
	if old.Immutable == nil || !*old.Immutable {
		return nil
	}
	const message = "field is immutable when `immutable` is set"
	var errs field.ErrorList
	if c.Immutable == nil || !*c.Immutable {
		errs = append(errs, field.Forbidden(field.NewPath("immutable"), message))
	}
	if !apiequality.Semantic.DeepEqual(c.Data, old.Data) {
		errs = append(errs, field.Forbidden(field.NewPath("data"), message))
	}
	if !apiequality.Semantic.DeepEqual(c.BinaryData, old.BinaryData) {
		errs = append(errs, field.Forbidden(field.NewPath("binaryData"), message))
	}
	return errs
}

func addConfigMaps(deps *registry.Dependencies, storages registry.Storages) error {
	_, own, err := registry.Build(deps, configMapKind())
	if err != nil {
		return err
	}
	storages.Add(own)
	return nil
}
