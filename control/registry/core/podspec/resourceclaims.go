package podspec

import (
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// podResourceClaims checks the claims to devices of the pod and remembers their names.
func (v *validator) podResourceClaims(path *field.Path) {
	v.claims = sets.New[string]()
	for _, claim := range v.spec.ResourceClaims {
		if claim.Name != "" {
			v.claims.Insert(claim.Name)
		}
	}
	seen := sets.New[string]()
	for i := range v.spec.ResourceClaims {
		v.podResourceClaim(&v.spec.ResourceClaims[i], seen, path.Index(i))
	}
}

func (v *validator) podResourceClaim(claim *corev1.PodResourceClaim, seen sets.Set[string], path *field.Path) {
	if v.meta != nil && v.meta.Annotations != nil {
		if _, static := v.meta.Annotations[corev1.MirrorPodAnnotationKey]; static {
			v.forbidden(field.NewPath(""), "static pods do not support resource claims")
			return
		}
	}
	switch {
	case claim.Name == "":
		v.required(path.Child("name"), "")
	case seen.Has(claim.Name):
		v.duplicate(path.Child("name"), claim.Name)
	default:
		v.dnsLabel(claim.Name, path.Child("name"))
		seen.Insert(claim.Name)
	}
	name, template := claim.ResourceClaimName, claim.ResourceClaimTemplateName
	switch {
	case name != nil && template != nil:
		v.invalid(path, *claim, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified")
	case name == nil && template == nil:
		v.invalid(path, *claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`")
	}
	if name != nil {
		v.invalidEach(path.Child("resourceClaimName"), *name, apivalidation.NameIsDNSSubdomain(*name, false))
	}
	if template != nil {
		v.invalidEach(path.Child("resourceClaimTemplateName"), *template, apivalidation.NameIsDNSSubdomain(*template, false))
	}
}
