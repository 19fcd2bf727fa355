package bootstrap

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestEveryRuleNamesAKnownGroupAndEveryBindingARole(t *testing.T) {
	t.Parallel()
	roles := map[string]bool{}
	for _, role := range ClusterRoles() {
		if roles[role.Name] {
			t.Errorf("%s stands twice", role.Name)
		}
		roles[role.Name] = true
		for _, rule := range role.Rules {
			if len(rule.Verbs) == 0 || len(rule.NonResourceURLs) == 0 && (len(rule.APIGroups) == 0 || len(rule.Resources) == 0) {
				t.Errorf("%s: empty rule %v", role.Name, rule)
			}
			for _, name := range rule.APIGroups {
				known := false
				for _, full := range groups {
					known = known || full == name
				}
				if !known {
					t.Errorf("%s: unknown group %q", role.Name, name)
				}
			}
		}
	}
	for _, binding := range ClusterRoleBindings() {
		if !roles[binding.RoleRef.Name] {
			t.Errorf("%s binds the unknown role %s", binding.Name, binding.RoleRef.Name)
		}
	}
}

func TestASecondReconcileWritesNothingAndAnAdministratorsSubjectStays(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset()
	if err := Reconcile(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	bindings := client.RbacV1().ClusterRoleBindings()
	admins, err := bindings.Get(t.Context(), "cluster-admin", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	admins.Subjects = append(admins.Subjects, person("ann"))
	if _, err := bindings.Update(t.Context(), admins, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	client.ClearActions()
	if err := Reconcile(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	for _, action := range client.Actions() {
		if action.GetVerb() != "get" {
			t.Errorf("%s %s", action.GetVerb(), action.GetResource().Resource)
		}
	}
}
