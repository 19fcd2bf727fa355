package podspec

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var taintEffects = []corev1.TaintEffect{
	corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute,
}

func (f *findings) tolerations(tolerations []corev1.Toleration, path *field.Path) {
	for i := range tolerations {
		f.toleration(&tolerations[i], path.Index(i))
	}
}

// ValidateTolerations checks tolerations that stand outside of a pod.
func ValidateTolerations(tolerations []corev1.Toleration, path *field.Path) field.ErrorList {
	var f findings
	f.tolerations(tolerations, path)
	return f.list
}

func (f *findings) toleration(t *corev1.Toleration, path *field.Path) {
	if t.Key != "" {
		f.add(metavalidation.ValidateLabelName(t.Key, path.Child("key"))...)
	} else if t.Operator != corev1.TolerationOpExists {
		f.invalid(path.Child("operator"), t.Operator,
			`operator must be Exists when `+"`key`"+` is empty, which means "match all values and all keys"`)
	}
	if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
		f.invalid(path.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
	}
	operator := path.Child("operator")
	switch t.Operator {
	case corev1.TolerationOpEqual, "":
		if messages := validation.IsValidLabelValue(t.Value); len(messages) > 0 {
			f.invalid(operator, t.Value, strings.Join(messages, ";"))
		}
	case corev1.TolerationOpExists:
		if t.Value != "" {
			f.invalid(operator, t.Value, "value must be empty when `operator` is 'Exists'")
		}
	case corev1.TolerationOpLt, corev1.TolerationOpGt:
		// Their feature is off by default; the message names them all the same.
		f.add(field.NotSupported(operator, t.Operator, []corev1.TolerationOperator{
			corev1.TolerationOpEqual, corev1.TolerationOpExists, corev1.TolerationOpLt, corev1.TolerationOpGt,
		}))
	default:
		oneOf(f, operator, t.Operator, corev1.TolerationOpEqual, corev1.TolerationOpExists)
	}
	if t.Effect != "" {
		oneOf(f, path.Child("effect"), t.Effect, taintEffects...)
	}
}

// ValidateTaints checks the taints of a node.
func ValidateTaints(taints []corev1.Taint, path *field.Path) field.ErrorList {
	var f findings
	type identity struct {
		key    string
		effect corev1.TaintEffect
	}
	seen := sets.New[identity]()
	for i, taint := range taints {
		at := path.Index(i)
		f.add(metavalidation.ValidateLabelName(taint.Key, at.Child("key"))...)
		if messages := validation.IsValidLabelValue(taint.Value); len(messages) > 0 {
			f.invalid(at.Child("value"), taint.Value, strings.Join(messages, ";"))
		}
		requiredOneOf(&f, at.Child("effect"), taint.Effect, taintEffects...)
		if id := (identity{taint.Key, taint.Effect}); seen.Has(id) {
			twice := field.Duplicate(at, taint)
			twice.Detail = "taints must be unique by key and effect pair"
			f.add(twice)
		} else {
			seen.Insert(id)
		}
	}
	return f.list
}
