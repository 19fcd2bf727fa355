package rbac

import (
	"errors"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// fixed is a Source of fixed objects.
type fixed struct {
	clusterRoles    map[string][]rbacv1.PolicyRule
	roles           map[string][]rbacv1.PolicyRule
	clusterBindings []*rbacv1.ClusterRoleBinding
	bindings        map[string][]*rbacv1.RoleBinding
	broken          bool
}

func (f *fixed) Role(namespace, name string) (*rbacv1.Role, error) {
	if rules, found := f.roles[namespace+"/"+name]; found {
		return &rbacv1.Role{Rules: rules}, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "roles"}, name)
}
func (f *fixed) ClusterRole(name string) (*rbacv1.ClusterRole, error) {
	if f.broken {
		return nil, errors.New("the store is away")
	}
	if rules, found := f.clusterRoles[name]; found {
		return &rbacv1.ClusterRole{Rules: rules}, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "clusterroles"}, name)
}
func (f *fixed) RoleBindings(namespace string) ([]*rbacv1.RoleBinding, error) {
	return f.bindings[namespace], nil
}
func (f *fixed) ClusterRoleBindings() ([]*rbacv1.ClusterRoleBinding, error) {
	return f.clusterBindings, nil
}

func rule(verbs, groups, resources string, names ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: strings.Fields(verbs), APIGroups: strings.Split(groups, ","), Resources: strings.Fields(resources), ResourceNames: names}
}

func TestWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	source := &fixed{
		clusterRoles: map[string][]rbacv1.PolicyRule{
			"reader":  {rule("get list", "", "pods"), rule("get", "", "pods/log")},
			"scaler":  {rule("update", "*", "*/scale")},
			"one":     {rule("get", "", "secrets", "mine")},
			"metrics": {{Verbs: []string{"get"}, NonResourceURLs: []string{"/metrics", "/livez/*"}}},
		},
		roles: map[string][]rbacv1.PolicyRule{"dev/writer": {rule("*", "apps", "deployments")}},
		clusterBindings: []*rbacv1.ClusterRoleBinding{
			{ObjectMeta: metav1.ObjectMeta{Name: "readers"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"}, Subjects: []rbacv1.Subject{{Kind: "Group", Name: "staff"}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "misc"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "scaler"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "ann"}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "metrics"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "metrics"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "ann"}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "gone"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "gone"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "ann"}}},
		},
		bindings: map[string][]*rbacv1.RoleBinding{"dev": {
			{ObjectMeta: metav1.ObjectMeta{Name: "w", Namespace: "dev"}, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "writer"}, Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "robot"}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "o", Namespace: "dev"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "one"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "ann"}}},
		}},
	}
	ann := &user.DefaultInfo{Name: "ann", Groups: []string{"staff"}}
	robot := &user.DefaultInfo{Name: "system:serviceaccount:dev:robot"}
	for name, tc := range map[string]struct {
		who     user.Info
		request authorizer.AttributesRecord
		allowed bool
	}{
		"a group's role":                         {ann, authorizer.AttributesRecord{Verb: "get", Resource: "pods", Namespace: "any"}, true},
		"a verb it does not have":                {ann, authorizer.AttributesRecord{Verb: "delete", Resource: "pods", Namespace: "any"}, false},
		"a subresource that is named":            {ann, authorizer.AttributesRecord{Verb: "get", Resource: "pods", Subresource: "log", Namespace: "any"}, true},
		"a subresource that is not":              {ann, authorizer.AttributesRecord{Verb: "get", Resource: "pods", Subresource: "exec", Namespace: "any"}, false},
		"another group's resource of that name":  {ann, authorizer.AttributesRecord{Verb: "get", APIGroup: "metrics.k8s.io", Resource: "pods", Namespace: "any"}, false},
		"scale of everything":                    {ann, authorizer.AttributesRecord{Verb: "update", APIGroup: "apps", Resource: "deployments", Subresource: "scale", Namespace: "any"}, true},
		"but not the thing itself":               {ann, authorizer.AttributesRecord{Verb: "update", APIGroup: "apps", Resource: "deployments", Namespace: "any"}, false},
		"an object by its name":                  {ann, authorizer.AttributesRecord{Verb: "get", Resource: "secrets", Name: "mine", Namespace: "dev"}, true},
		"another object":                         {ann, authorizer.AttributesRecord{Verb: "get", Resource: "secrets", Name: "other", Namespace: "dev"}, false},
		"that object in another namespace":       {ann, authorizer.AttributesRecord{Verb: "get", Resource: "secrets", Name: "mine", Namespace: "prod"}, false},
		"a service account of the binding's own": {robot, authorizer.AttributesRecord{Verb: "patch", APIGroup: "apps", Resource: "deployments", Namespace: "dev"}, true},
		"a service account in another namespace": {robot, authorizer.AttributesRecord{Verb: "patch", APIGroup: "apps", Resource: "deployments", Namespace: "prod"}, false},
		"a path":                                 {ann, authorizer.AttributesRecord{Verb: "get", Path: "/metrics"}, true},
		"a path below a wild card":               {ann, authorizer.AttributesRecord{Verb: "get", Path: "/livez/ping"}, true},
		"a path that only begins alike":          {ann, authorizer.AttributesRecord{Verb: "get", Path: "/metrics2"}, false},
		"a stranger":                             {&user.DefaultInfo{Name: "bob"}, authorizer.AttributesRecord{Verb: "get", Resource: "pods", Namespace: "any"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			tc.request.User, tc.request.ResourceRequest = tc.who, tc.request.Path == ""
			decision, reason, err := New(source).Authorize(t.Context(), tc.request)
			if err != nil || (decision == authorizer.DecisionAllow) != tc.allowed {
				t.Errorf("got %v %q %v, want allowed %v", decision, reason, err, tc.allowed)
			}
		})
	}
}

func TestABrokenStoreAllowsNothing(t *testing.T) {
	t.Parallel()
	source := &fixed{broken: true, clusterBindings: []*rbacv1.ClusterRoleBinding{
		{RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "ann"}}},
	}}
	decision, reason, _ := New(source).Authorize(t.Context(), authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "ann"}, Verb: "get", Resource: "pods", ResourceRequest: true})
	if decision != authorizer.DecisionNoOpinion || !strings.Contains(reason, "the store is away") {
		t.Errorf("got %v %q", decision, reason)
	}
}
