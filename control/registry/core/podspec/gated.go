package podspec

import (
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// gatedPlacement judges how the choice of nodes of a pod behind scheduling gates changed: it may
// become narrower. What was judged is undone in rest.
func (v *validator) gatedPlacement(rest, old *corev1.PodSpec, path *field.Path) {
	if !apiequality.Semantic.DeepEqual(rest.NodeSelector, old.NodeSelector) {
		for key, value := range old.NodeSelector {
			if now, kept := rest.NodeSelector[key]; !kept || now != value {
				v.invalid(path.Child("nodeSelector"), rest.NodeSelector, "only additions to spec.nodeSelector are allowed (no mutations or deletions)")
				break
			}
		}
		rest.NodeSelector = old.NodeSelector
	}
	was, is := nodeAffinity(old), nodeAffinity(rest)
	if apiequality.Semantic.DeepEqual(was, is) {
		return
	}
	v.nodeAffinityNarrows(is, was, path.Child("affinity", "nodeAffinity"))
	switch {
	case rest.Affinity == nil:
		rest.Affinity = &corev1.Affinity{NodeAffinity: was}
	case old.Affinity == nil && rest.Affinity.PodAffinity == nil && rest.Affinity.PodAntiAffinity == nil:
		rest.Affinity = nil
	default:
		rest.Affinity.NodeAffinity = was
	}
}

func nodeAffinity(spec *corev1.PodSpec) *corev1.NodeAffinity {
	if spec.Affinity == nil {
		return nil
	}
	return spec.Affinity.NodeAffinity
}

func requiredTerms(affinity *corev1.NodeAffinity) []corev1.NodeSelectorTerm {
	if affinity == nil || affinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	return affinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
}

// nodeAffinityNarrows: one of the terms must match, so a further term would widen the choice; all
// expressions of a term must match, so further expressions narrow it.
func (v *validator) nodeAffinityNarrows(updated, old *corev1.NodeAffinity, path *field.Path) {
	was, is := requiredTerms(old), requiredTerms(updated)
	if len(was) == 0 {
		return
	}
	terms := path.Child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
	if len(was) != len(is) {
		v.invalid(terms, is, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")
		return
	}
	for i := range was {
		empty := len(was[i].MatchExpressions)+len(was[i].MatchFields) == 0
		widened := empty && len(is[i].MatchExpressions)+len(is[i].MatchFields) > 0
		if widened || !startsWith(is[i].MatchExpressions, was[i].MatchExpressions) || !startsWith(is[i].MatchFields, was[i].MatchFields) {
			v.invalid(terms.Index(i), is[i], "only additions are allowed (no mutations or deletions)")
		}
	}
}

func startsWith(list, start []corev1.NodeSelectorRequirement) bool {
	return len(list) >= len(start) && (len(start) == 0 || apiequality.Semantic.DeepEqual(list[:len(start)], start))
}
