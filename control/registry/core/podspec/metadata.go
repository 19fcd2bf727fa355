package podspec

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateObjectMeta checks the metadata of an object of the built-in API groups: the rules of all
// API objects, and that finalizers without a domain are the three Kubernetes knows.
func ValidateObjectMeta(meta *metav1.ObjectMeta, namespaced bool, name apivalidation.ValidateNameFunc) field.ErrorList {
	path := field.NewPath("metadata")
	return append(apivalidation.ValidateObjectMeta(meta, namespaced, name, path), validateFinalizers(meta, path)...)
}

// ValidateObjectMetaUpdate checks a change of the metadata of such an object.
func ValidateObjectMetaUpdate(updated, old *metav1.ObjectMeta) field.ErrorList {
	path := field.NewPath("metadata")
	return append(apivalidation.ValidateObjectMetaUpdate(updated, old, path), validateFinalizers(updated, path)...)
}

func validateFinalizers(meta *metav1.ObjectMeta, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, name := range meta.Finalizers {
		standard := []string{string(corev1.FinalizerKubernetes), metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents}
		if !strings.Contains(name, "/") && !slices.Contains(standard, name) {
			errs = append(errs, field.Invalid(path.Child("finalizers").Index(i), name,
				"name is neither a standard finalizer name nor is it fully qualified"))
		}
	}
	return errs
}
