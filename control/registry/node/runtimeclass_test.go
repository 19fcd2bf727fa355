package node

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestValidationOfRuntimeClasses(t *testing.T) {
	t.Parallel()
	twice := corev1.Toleration{Key: "sandbox", Operator: corev1.TolerationOpExists}
	for name, tc := range map[string]struct {
		class nodev1.RuntimeClass
		want  []string
	}{
		"a handler is enough":   {class: nodev1.RuntimeClass{Handler: "kata"}},
		"no handler":            {nodev1.RuntimeClass{}, []string{`handler: Required value`}},
		"a handler that is bad": {nodev1.RuntimeClass{Handler: "Kata.1"}, []string{`handler: Invalid value: "Kata.1": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`}},
		"overhead that is negative": {nodev1.RuntimeClass{Handler: "kata", Overhead: &nodev1.Overhead{PodFixed: corev1.ResourceList{"cpu": resource.MustParse("-1")}}},
			[]string{`overhead.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0`}},
		"a toleration twice": {nodev1.RuntimeClass{Handler: "kata", Scheduling: &nodev1.Scheduling{Tolerations: []corev1.Toleration{twice, twice}}},
			[]string{`scheduling.tolerations[1]: Duplicate value: {"key":"sandbox","operator":"Exists"}`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, err := range validateRuntimeClass(&tc.class) {
				got = append(got, err.Error())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
	if got := runtimeClassWarnings(&nodev1.RuntimeClass{Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"beta.kubernetes.io/os": "linux"}}}); len(got) != 1 ||
		got[0] != `scheduling.nodeSelector: deprecated since v1.14; use "kubernetes.io/os" instead` {
		t.Errorf("warnings %q", got)
	}
}
