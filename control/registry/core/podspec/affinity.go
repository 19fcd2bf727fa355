package podspec

import (
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (v *validator) affinity(path *field.Path) {
	affinity := v.spec.Affinity
	if affinity == nil {
		return
	}
	const required = "requiredDuringSchedulingIgnoredDuringExecution"
	const preferred = "preferredDuringSchedulingIgnoredDuringExecution"
	if nodes := affinity.NodeAffinity; nodes != nil {
		at := path.Child("nodeAffinity")
		if nodes.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			v.nodeSelector(nodes.RequiredDuringSchedulingIgnoredDuringExecution, at.Child(required))
		}
		for i, term := range nodes.PreferredDuringSchedulingIgnoredDuringExecution {
			at := at.Child(preferred).Index(i)
			v.weight(term.Weight, at)
			// Values are not checked here: a preference that matches nothing does no harm.
			v.nodeSelectorTerm(&term.Preference, false, at.Child("preference"))
		}
	}
	if pods := affinity.PodAffinity; pods != nil {
		at := path.Child("podAffinity")
		v.podTerms(pods.RequiredDuringSchedulingIgnoredDuringExecution, at.Child(required))
		v.weightedPodTerms(pods.PreferredDuringSchedulingIgnoredDuringExecution, at.Child(preferred))
	}
	if pods := affinity.PodAntiAffinity; pods != nil {
		at := path.Child("podAntiAffinity")
		v.podTerms(pods.RequiredDuringSchedulingIgnoredDuringExecution, at.Child(required))
		v.weightedPodTerms(pods.PreferredDuringSchedulingIgnoredDuringExecution, at.Child(preferred))
	}
}

func (f *findings) weight(weight int32, path *field.Path) {
	if weight <= 0 || weight > 100 {
		f.invalid(path.Child("weight"), weight, "must be in the range 1-100")
	}
}

func (f *findings) nodeSelector(selector *corev1.NodeSelector, path *field.Path) {
	terms := path.Child("nodeSelectorTerms")
	if len(selector.NodeSelectorTerms) == 0 {
		f.required(terms, "must have at least one node selector term")
	}
	for i := range selector.NodeSelectorTerms {
		f.nodeSelectorTerm(&selector.NodeSelectorTerms[i], true, terms.Index(i))
	}
}

func (f *findings) nodeSelectorTerm(term *corev1.NodeSelectorTerm, checkValues bool, path *field.Path) {
	for i := range term.MatchExpressions {
		f.nodeLabelRequirement(&term.MatchExpressions[i], checkValues, path.Child("matchExpressions").Index(i))
	}
	for i := range term.MatchFields {
		f.nodeFieldRequirement(&term.MatchFields[i], path.Child("matchFields").Index(i))
	}
}

func (f *findings) nodeLabelRequirement(r *corev1.NodeSelectorRequirement, checkValues bool, path *field.Path) {
	values := path.Child("values")
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) == 0 {
			f.required(values, "must be specified when `operator` is 'In' or 'NotIn'")
		}
	case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			f.forbidden(values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
		}
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if len(r.Values) != 1 {
			f.required(values, "must be specified single value when `operator` is 'Lt' or 'Gt'")
		}
	default:
		f.invalid(path.Child("operator"), r.Operator, "not a valid selector operator")
	}
	f.add(metavalidation.ValidateLabelName(r.Key, path.Child("key"))...)
	if !checkValues {
		return
	}
	for i, value := range r.Values {
		f.invalidEach(values.Index(i), value, validation.IsValidLabelValue(value))
	}
}

// nodeFieldRequirement: the one field of a node that can be selected by is its name.
func (f *findings) nodeFieldRequirement(r *corev1.NodeSelectorRequirement, path *field.Path) {
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) != 1 {
			f.required(path.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector")
		}
	default:
		f.invalid(path.Child("operator"), r.Operator, "not a valid selector operator")
	}
	if r.Key != metav1.ObjectNameField {
		f.invalid(path.Child("key"), r.Key, "not a valid field selector key")
		return
	}
	for i, value := range r.Values {
		f.invalidEach(path.Child("values").Index(i), value, apivalidation.NameIsDNSSubdomain(value, false))
	}
}

func (f *findings) podTerms(terms []corev1.PodAffinityTerm, path *field.Path) {
	for i := range terms {
		f.podTerm(&terms[i], path.Index(i))
	}
}

func (f *findings) weightedPodTerms(terms []corev1.WeightedPodAffinityTerm, path *field.Path) {
	for i := range terms {
		f.weight(terms[i].Weight, path.Index(i))
		f.podTerm(&terms[i].PodAffinityTerm, path.Index(i).Child("podAffinityTerm"))
	}
}

func (f *findings) podTerm(term *corev1.PodAffinityTerm, path *field.Path) {
	f.labelSelector(term.LabelSelector, path.Child("labelSelector"))
	f.labelSelector(term.NamespaceSelector, path.Child("namespaceSelector"))
	for _, namespace := range term.Namespaces {
		f.invalidEach(path.Child("namespace"), namespace, apivalidation.ValidateNamespaceName(namespace, false))
	}
	f.labelKeys(term.MatchLabelKeys, term.MismatchLabelKeys, term.LabelSelector, path)
	if term.TopologyKey == "" {
		f.required(path.Child("topologyKey"), "can not be empty")
	}
	f.add(metavalidation.ValidateLabelName(term.TopologyKey, path.Child("topologyKey"))...)
}

func (f *findings) labelSelector(selector *metav1.LabelSelector, path *field.Path) {
	f.add(metavalidation.ValidateLabelSelector(selector, metavalidation.LabelSelectorValidationOptions{}, path)...)
}

// labelKeys checks the keys whose values are taken from the pod's own labels. By the time this is
// asked they have become expressions at the end of the selector, so a key that occurs twice there
// was given twice.
func (f *findings) labelKeys(match, mismatch []string, selector *metav1.LabelSelector, path *field.Path) {
	f.labelKeyNames(match, selector, path.Child("matchLabelKeys"))
	f.labelKeyNames(mismatch, selector, path.Child("mismatchLabelKeys"))
	if selector != nil {
		index := map[string]int{}
		for i, key := range match {
			index[key] = i
		}
		selected := sets.KeySet(selector.MatchLabels)
		for _, expression := range selector.MatchExpressions {
			if i, own := index[expression.Key]; own && selected.Has(expression.Key) {
				f.invalid(path.Index(i), expression.Key, "exists in both matchLabelKeys and labelSelector")
			}
			selected.Insert(expression.Key)
		}
	}
	excluded := sets.New(mismatch...)
	for i, key := range match {
		if excluded.Has(key) {
			f.invalid(path.Child("matchLabelKeys").Index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys")
		}
	}
}

func (f *findings) labelKeyNames(keys []string, selector *metav1.LabelSelector, path *field.Path) {
	if len(keys) > 0 && selector == nil {
		f.forbidden(path, "must not be specified when labelSelector is not set")
		return
	}
	for i, key := range keys {
		f.add(metavalidation.ValidateLabelName(key, path.Index(i))...)
	}
}
