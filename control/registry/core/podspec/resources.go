package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	resourcehelper "k8s.io/component-helpers/resource"
)

// resources checks what a container requests and is limited to.
func (v *validator) resources(r *corev1.ResourceRequirements, path *field.Path) {
	v.requirements(r, v.containerResourceName, path)
}

// ValidateOverhead checks what a runtime takes for itself beside a pod's containers.
func ValidateOverhead(overhead corev1.ResourceList, path *field.Path) field.ErrorList {
	v := validator{spec: &corev1.PodSpec{}}
	v.resources(&corev1.ResourceRequirements{Limits: overhead}, path)
	return v.list
}

// requirements checks requests and limits of container or pod, which differ in the names allowed.
func (v *validator) requirements(r *corev1.ResourceRequirements, checkName func(corev1.ResourceName, *field.Path), path *field.Path) {
	limits, requests := path.Child("limits"), path.Child("requests")
	computes, huge := false, false
	each := func(list corev1.ResourceList, at *field.Path, then func(corev1.ResourceName, quantity)) {
		for _, name := range sortedKeys(list) {
			amount, at := list[name], at.Key(string(name))
			checkName(name, at)
			v.add(ValidateQuantity(name, amount, at)...)
			then(name, amount)
			computes = computes || name == corev1.ResourceCPU || name == corev1.ResourceMemory
			if !isHugePages(name) {
				continue
			}
			huge = true
			if !hugePagesDivide(name, amount) {
				v.invalid(at, amount.String(), fmt.Sprintf("%s is not positive integer multiple of %s", amount.String(), name))
			}
		}
	}
	each(r.Limits, limits, func(corev1.ResourceName, quantity) {})
	each(r.Requests, requests, func(name corev1.ResourceName, amount quantity) {
		limit, limited := r.Limits[name]
		switch {
		case !limited && !overcommitAllowed(name):
			v.required(limits, "Limit must be set for non overcommitable resources")
		case limited && !overcommitAllowed(name) && amount.Cmp(limit) != 0:
			v.invalid(requests, amount.String(), fmt.Sprintf("must be equal to %s limit of %s", name, limit.String()))
		case limited && amount.Cmp(limit) > 0:
			v.invalid(requests, amount.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", name, limit.String()))
		}
	})
	if huge && !computes {
		v.forbidden(path, "HugePages require cpu or memory")
	}
	v.claimReferences(r.Claims, path.Child("claims"))
}

// podResources checks the resources of the pod as a whole against those of its containers.
func (v *validator) podResources(path *field.Path) {
	r := v.spec.Resources
	if r == nil {
		return
	}
	at := path.Child("resources")
	if v.spec.OS != nil && v.spec.OS.Name == corev1.Windows {
		v.forbidden(at, "may not be set for a windows pod")
		return
	}
	if r.Claims != nil {
		v.forbidden(at.Child("claims"), "claims may not be set for Resources at pod-level")
	}
	v.requirements(r, func(name corev1.ResourceName, at *field.Path) {
		if v.resourceName(name, at) && !resourcehelper.IsSupportedPodLevelResource(name) {
			v.add(field.NotSupported(at, name, sets.List(resourcehelper.SupportedPodLevelResources())))
		}
	}, at)

	pod, options := &corev1.Pod{Spec: *v.spec}, resourcehelper.PodResourcesOptions{}
	requested := resourcehelper.AggregateContainerRequests(pod, options)
	for _, name := range sortedKeys(requested) {
		sum := requested[name]
		if whole, set := r.Requests[name]; set && sum.Cmp(whole) > 0 {
			v.invalid(at.Child("requests").Key(string(name)), whole.String(),
				fmt.Sprintf("must be greater than or equal to aggregate container requests of %s", sum.String()))
		}
	}
	// Huge pages are never shared: what containers may use at most must fit.
	limited := resourcehelper.AggregateContainerLimits(pod, options)
	for _, name := range sortedKeys(limited) {
		sum := limited[name]
		if whole, set := r.Limits[name]; set && isHugePages(name) && sum.Cmp(whole) > 0 {
			v.invalid(at.Child("limits").Key(string(name)), whole.String(),
				fmt.Sprintf("must be greater than or equal to aggregate container limits of %s", sum.String()))
		}
	}
	for i := range v.spec.Containers {
		own := v.spec.Containers[i].Resources.Limits
		for _, name := range sortedKeys(own) {
			limit := own[name]
			if whole, set := r.Limits[name]; set && limit.Cmp(whole) > 0 {
				v.invalid(at.Child("containers").Index(i).Key(string(name)).Child("limits"), limit.String(),
					fmt.Sprintf("must be less than or equal to pod limits of %s", whole.String()))
			}
		}
	}
}

// claimReferences checks which of the pod's resource claims a container uses: a claim as a whole
// or single requests of it, and nothing twice.
func (v *validator) claimReferences(refs []corev1.ResourceClaim, path *field.Path) {
	seen := sets.New[string]()
	for i, ref := range refs {
		at := path.Index(i)
		if ref.Name == "" {
			v.required(at, "")
			continue
		}
		v.claimReferenceOnce(ref, seen, at)
		if !v.claims.Has(ref.Name) {
			missing := field.NotFound(at, ref.Name)
			missing.Detail = "must be one of the names in pod.spec.resourceClaims"
			if v.claims.Len() == 0 {
				missing.Detail += " which is empty"
			} else {
				missing.Detail += ": " + strings.Join(sets.List(v.claims), ", ")
			}
			v.add(missing)
		}
	}
}

func (v *validator) claimReferenceOnce(ref corev1.ResourceClaim, seen sets.Set[string], path *field.Path) {
	if seen.Has(ref.Name) {
		v.duplicate(path, ref.Name)
		return
	}
	key := ref.Name
	if ref.Request != "" {
		v.dnsLabel(ref.Request, path.Child("request"))
		key += "/" + ref.Request
	}
	if seen.Has(key) {
		v.duplicate(path, key)
	} else if ref.Request == "" {
		for other := range seen {
			if claim, _, partial := strings.Cut(other, "/"); partial && claim == ref.Name {
				v.duplicate(path, ref.Name)
			}
		}
	}
	seen.Insert(key)
}
