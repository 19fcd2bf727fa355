package rbac

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func messages(errs field.ErrorList) []string {
	var out []string
	for _, err := range errs {
		out = append(out, err.Error())
	}
	return out
}

func TestValidationOfRules(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		rule       rbacv1.PolicyRule
		namespaced bool
		want       []string
	}{
		"a resource rule": {rule: rule("get", "", "pods"), namespaced: true},
		"a path":          {rule: rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/metrics"}}},
		"nothing": {namespaced: true, want: []string{
			"rules[0].verbs: Required value",
			"rules[0].apiGroups: Required value: resource rules must supply at least one api group",
			"rules[0].resources: Required value: resource rules must supply at least one resource",
		}},
		"a path in a namespace": {rule: rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/a"}}, namespaced: true, want: []string{
			`rules[0].nonResourceURLs: Invalid value: ["/a"]: namespaced rules cannot apply to non-resource URLs`,
		}},
		"a path and a resource": {rule: rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/a"}, Resources: []string{"pods"}}, want: []string{
			`rules[0].nonResourceURLs: Invalid value: ["/a"]: rules cannot apply to both regular resources and non-resource URLs`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, messages(validateRules([]rbacv1.PolicyRule{tc.rule}, tc.namespaced))); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBindings(t *testing.T) {
	t.Parallel()
	b := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "b"}, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "r"},
		Subjects: []rbacv1.Subject{{Kind: "User", Name: "ann"}, {Kind: "Group", Name: "staff"}, {Kind: "ServiceAccount", Name: "bot", Namespace: "dev"}},
	}
	roleBindingKind().Default(b)
	if errs := validateBinding(b.RoleRef, b.Subjects, true); len(errs) > 0 {
		t.Errorf("a good one is refused: %v", errs.ToAggregate())
	}
	row := roleBindingKind().Row(b)
	if diff := cmp.Diff([]any{"b", "Role/r", "<unknown>", "ann", "staff", "dev/bot"}, row); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	want := []string{
		`roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"`,
		"subjects[0].namespace: Required value",
		"subjects[1].name: Required value",
		`subjects[1].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group"`,
	}
	got := validateBinding(b.RoleRef, []rbacv1.Subject{{Kind: "ServiceAccount", Name: "bot"}, {Kind: "Robot"}}, false)
	if diff := cmp.Diff(want, messages(got)); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	other := b.DeepCopy()
	other.RoleRef.Name = "s"
	want = []string{`roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"s"}: field is immutable`}
	if diff := cmp.Diff(want, messages(roleBindingKind().ValidateUpdate(t.Context(), other, b))); diff != "" {
		t.Errorf("messages of another role (-want +got):\n%s", diff)
	}
}
