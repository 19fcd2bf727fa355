package bootstrap

import (
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/skiff-run/skiff/control/auth/rbac"
)

// Known says whether the source has every default role and binding, whatever
// they say by now.
func Known(source rbac.Source) (bool, error) {
	for _, role := range ClusterRoles() {
		if _, err := source.ClusterRole(role.Name); err != nil {
			return missing("ClusterRole "+role.Name, err)
		}
	}
	clusterBindings, err := source.ClusterRoleBindings()
	if err != nil {
		return false, fmt.Errorf("list ClusterRoleBindings: %w", err)
	}
	found := map[string]bool{}
	for _, binding := range clusterBindings {
		found[binding.Name] = true
	}
	for _, binding := range ClusterRoleBindings() {
		if !found[binding.Name] {
			return false, nil
		}
	}
	roles, bindings := local()
	for _, role := range roles {
		if _, err := source.Role(role.Namespace, role.Name); err != nil {
			return missing("Role "+role.Namespace+"/"+role.Name, err)
		}
	}
	for _, wanted := range bindings {
		found, err := source.RoleBindings(wanted.Namespace)
		if err != nil {
			return false, fmt.Errorf("list RoleBindings in %s: %w", wanted.Namespace, err)
		}
		if !contains(found, wanted.Name) {
			return false, nil
		}
	}
	return true, nil
}

func contains(bindings []*rbacv1.RoleBinding, name string) bool {
	for _, binding := range bindings {
		if binding.Name == name {
			return true
		}
	}
	return false
}

// missing is the answer of Known when an object could not be read.
func missing(what string, err error) (bool, error) {
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return false, fmt.Errorf("read %s: %w", what, err)
}
