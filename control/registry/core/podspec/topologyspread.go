package podspec

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (v *validator) topologySpread(path *field.Path) {
	constraints := v.spec.TopologySpreadConstraints
	for i := range constraints {
		c, at := &constraints[i], path.Index(i)
		v.positive(int64(c.MaxSkew), at.Child("maxSkew"))
		if c.TopologyKey == "" {
			v.required(at.Child("topologyKey"), "can not be empty")
		}
		oneOf(&v.findings, at.Child("whenUnsatisfiable"), c.WhenUnsatisfiable, corev1.DoNotSchedule, corev1.ScheduleAnyway)
		for _, other := range constraints[i+1:] {
			if other.TopologyKey == c.TopologyKey && other.WhenUnsatisfiable == c.WhenUnsatisfiable {
				v.duplicate(at.Child("{topologyKey, whenUnsatisfiable}"), fmt.Sprintf("{%v, %v}", c.TopologyKey, c.WhenUnsatisfiable))
				break
			}
		}
		if c.MinDomains != nil {
			v.positive(int64(*c.MinDomains), at.Child("minDomains"))
			if c.WhenUnsatisfiable != corev1.DoNotSchedule {
				v.invalid(at.Child("minDomains"), c.MinDomains,
					fmt.Sprintf("can only use minDomains if whenUnsatisfiable=%s, not %s", corev1.DoNotSchedule, c.WhenUnsatisfiable))
			}
		}
		v.inclusion(c.NodeAffinityPolicy, at.Child("nodeAffinityPolicy"))
		v.inclusion(c.NodeTaintsPolicy, at.Child("nodeTaintsPolicy"))
		v.labelKeys(c.MatchLabelKeys, nil, c.LabelSelector, at)
		v.labelSelector(c.LabelSelector, at.Child("labelSelector"))
	}
}

// inclusion checks which nodes a constraint counts.
func (v *validator) inclusion(policy *corev1.NodeInclusionPolicy, path *field.Path) {
	if policy != nil {
		oneOf(&v.findings, path, *policy, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)
	}
}
