package core

import (
	"fmt"
	"regexp"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

// featureName is the form of a feature an agent declares: segments in camel case, the first upper.
var featureName = regexp.MustCompile(`^[A-Z][a-zA-Z0-9]*(\/[a-zA-Z][a-zA-Z0-9]*)*$`)

func validateNode(n *corev1.Node) field.ErrorList {
	meta, status := field.NewPath("metadata"), field.NewPath("status")
	errs := podspec.ValidateObjectMeta(&n.ObjectMeta, false, apivalidation.NameIsDNSSubdomain)
	// The taints are in the spec; upstream names them so.
	errs = append(errs, podspec.ValidateTaints(n.Spec.Taints, meta.Child("taints"))...)
	errs = append(errs, validateNodeResources(n)...)
	if swap := n.Status.NodeInfo.Swap; swap != nil && swap.Capacity != nil && *swap.Capacity <= 0 {
		errs = append(errs, field.Invalid(meta.Child("nodeSwapStatus", "capacity"), *swap.Capacity, "must be greater than zero"))
	}
	errs = append(errs, validateDeclaredFeatures(n.Status.DeclaredFeatures, status.Child("declaredFeatures"))...)
	return append(errs, validatePodCIDRs(n.Spec.PodCIDRs, field.NewPath("spec", "podCIDRs"))...)
}

func validateNodeResources(n *corev1.Node) (errs field.ErrorList) {
	for part, list := range map[string]corev1.ResourceList{"capacity": n.Status.Capacity, "allocatable": n.Status.Allocatable} {
		for name, amount := range list {
			errs = append(errs, podspec.ValidateQuantity(name, amount, field.NewPath("status", part, string(name)))...)
		}
	}
	return errs
}

func validateDeclaredFeatures(names []string, path *field.Path) (errs field.ErrorList) {
	for i, name := range names {
		switch {
		case len(name) > validation.DNS1123SubdomainMaxLength:
			errs = append(errs, field.Invalid(path.Index(i), name,
				fmt.Sprintf("invalid feature name %q: must be no more than %d characters", name, validation.DNS1123SubdomainMaxLength)))
		case !featureName.MatchString(name):
			errs = append(errs, field.Invalid(path.Index(i), name, fmt.Sprintf("invalid feature name %q: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes", name)))
		}
		if i+1 == len(names) {
			break
		}
		switch next := names[i+1]; {
		case name == next:
			errs = append(errs, field.Duplicate(path.Index(i+1), next))
		case name > next:
			errs = append(errs, field.Invalid(path.Index(i+1), next, "list must be sorted alphabetically"))
		}
	}
	return errs
}

func validatePodCIDRs(cidrs []string, path *field.Path) (errs field.ErrorList) {
	for i, cidr := range cidrs {
		errs = append(errs, validation.IsValidCIDRForLegacyField(path.Index(i), cidr, true, nil)...)
	}
	if len(cidrs) < 2 {
		return errs
	}
	dual, err := netutils.IsDualStackCIDRStrings(cidrs)
	if err != nil {
		errs = append(errs, field.InternalError(path, fmt.Errorf("invalid PodCIDRs. failed to check with dual stack with error:%v", err)))
	}
	if !dual || len(cidrs) > 2 {
		errs = append(errs, field.Invalid(path, cidrs, "may specify no more than one CIDR for each IP family"))
	}
	return errs
}

// validateNodeUpdate checks changes of a node or its status. What identifies the node to others,
// its pods' addresses and its provider's name for it, is given once.
func validateNodeUpdate(n, old *corev1.Node) field.ErrorList {
	errs := podspec.ValidateObjectMetaUpdate(&n.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, validateNodeResources(n)...)
	errs = append(errs, validateDeclaredFeatures(n.Status.DeclaredFeatures, field.NewPath("status", "declaredFeatures"))...)

	seen := map[corev1.NodeAddress]bool{}
	for i, address := range n.Status.Addresses {
		if seen[address] {
			errs = append(errs, field.Duplicate(field.NewPath("status", "addresses").Index(i), address))
		}
		seen[address] = true
	}
	spec := field.NewPath("spec")
	errs = append(errs, podCIDRsKept(n.Spec.PodCIDRs, old.Spec.PodCIDRs, spec.Child("podCIDRs"))...)
	switch was, is := old.Spec.ProviderID, n.Spec.ProviderID; {
	case was == "" || was == is:
	case is == "":
		errs = append(errs, field.Invalid(spec.Child("providerID"), nil, "field cannot be cleared once set"))
	default:
		errs = append(errs, field.Invalid(spec.Child("providerID"), nil, "field cannot be modified once set"))
	}
	errs = append(errs, podspec.ValidateTaints(n.Spec.Taints, field.NewPath("metadata", "taints"))...)
	if n.Spec.DoNotUseExternalID != old.Spec.DoNotUseExternalID {
		errs = append(errs, field.Forbidden(spec.Child("externalID"), "may not be updated"))
	}
	return errs
}

func podCIDRsKept(updated, old []string, path *field.Path) (errs field.ErrorList) {
	changed := field.Forbidden(path, "node updates may not change podCIDR except from \"\" to valid")
	if len(old) == 0 {
		return nil
	}
	if len(old) != len(updated) {
		return field.ErrorList{changed}
	}
	for i := range old {
		if old[i] != updated[i] {
			errs = append(errs, changed)
		}
	}
	return errs
}
