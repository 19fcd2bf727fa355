package rbac

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/component-helpers/auth/rbac/validation"

	"github.com/skiff-run/skiff/control/registry"
)

// guard keeps those who may write roles and bindings from gaining, by that,
// rights that they do not have.
type guard struct{ deps *registry.Dependencies }

// privileged says whether the request comes from someone for whom nothing is
// checked: the server itself is of that group on its loopback connections.
func privileged(ctx context.Context) bool {
	who, found := request.UserFrom(ctx)
	return found && slices.Contains(who.GetGroups(), user.SystemPrivilegedGroup)
}

// mayEscalate says whether the user has the verb escalate on the role resource
// of the request.
func (g guard) mayEscalate(ctx context.Context, resource string) bool {
	info, found := request.RequestInfoFrom(ctx)
	if !found || !info.IsResourceRequest || info.APIGroup != rbacv1.GroupName || info.Resource != resource {
		return false
	}
	return g.allows(ctx, authorizer.AttributesRecord{
		Verb: "escalate", APIGroup: rbacv1.GroupName, APIVersion: "*", Resource: resource,
		Name: info.Name, Namespace: info.Namespace, ResourceRequest: true,
	})
}

// mayBind says whether the user has the verb bind on a role, in the namespace
// of the binding (empty for a ClusterRoleBinding).
func (g guard) mayBind(ctx context.Context, role rbacv1.RoleRef, namespace string) bool {
	resources := map[string]string{"Role": "roles", "ClusterRole": "clusterroles"}
	resource, known := resources[role.Kind]
	return known && g.allows(ctx, authorizer.AttributesRecord{
		Verb: "bind", APIGroup: role.APIGroup, APIVersion: "*", Resource: resource,
		Name: role.Name, Namespace: namespace, ResourceRequest: true,
	})
}

func (g guard) allows(ctx context.Context, attributes authorizer.AttributesRecord) bool {
	who, found := request.UserFrom(ctx)
	if !found || g.deps.Authorizer == nil {
		return false
	}
	attributes.User = who
	// An authorizer that fails has not allowed it; what follows decides then.
	decision, _, _ := g.deps.Authorizer.Authorize(ctx, attributes)
	return decision == authorizer.DecisionAllow
}

// checkRole returns an error unless the user holds the rules of a role.
func (g guard) checkRole(ctx context.Context, resource, name string, rules []rbacv1.PolicyRule) error {
	if g.deps.RBAC == nil {
		return errNotReady
	}
	if err := g.holds(ctx, rules); err != nil {
		return apierrors.NewForbidden(rbacv1.Resource(resource), name, err)
	}
	return nil
}

// everything is what an aggregated ClusterRole can come to hold.
var everything = []rbacv1.PolicyRule{
	{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
	{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
}

// checkAggregation returns an error unless the user holds everything.
func (g guard) checkAggregation(ctx context.Context, name string) error {
	if err := g.holds(ctx, everything); err != nil {
		return apierrors.NewForbidden(rbacv1.Resource("clusterroles"), name, errors.New("must have cluster-admin privileges to use the aggregationRule"))
	}
	return nil
}

// checkBinding returns an error unless the user may bind the role or holds its
// rules already.
func (g guard) checkBinding(ctx context.Context, resource, name string, role rbacv1.RoleRef, namespace string) error {
	if g.mayBind(ctx, role, namespace) {
		return nil
	}
	if g.deps.RBAC == nil {
		return errNotReady
	}
	rules, err := g.deps.RBAC.RoleRules(role, namespace)
	if err != nil {
		return err
	}
	return g.checkRole(ctx, resource, name, rules)
}

// errNotReady answers requests that come before the server can decide.
var errNotReady = apierrors.NewServiceUnavailable("the RBAC rules are not loaded yet")

// holds returns an error that names the rules which the user does not hold in
// the namespace of the request.
func (g guard) holds(ctx context.Context, rules []rbacv1.PolicyRule) error {
	who, found := request.UserFrom(ctx)
	if !found {
		return errors.New("no user on context")
	}
	own, err := g.deps.RBAC.RulesOf(who, request.NamespaceValue(ctx))
	covered, missing := validation.Covers(own, rules)
	if covered {
		return nil
	}
	message := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s", who.GetName(), who.GetGroups(), describe(missing))
	if err != nil {
		message += fmt.Sprintf("; resolution errors: %v", []error{err})
	}
	return errors.New(message)
}

// describe lists rules one a line, the verbs on one resource together.
func describe(rules []rbacv1.PolicyRule) string {
	var order []string
	verbs, heads := map[string][]string{}, map[string]rbacv1.PolicyRule{}
	for _, rule := range rules {
		head := rule
		head.Verbs = nil
		key := describeRule(head)
		if len(rule.NonResourceURLs) > 0 {
			// Paths are told apart by their verbs too.
			key = describeRule(rule)
		}
		if _, seen := heads[key]; !seen {
			order = append(order, key)
			heads[key] = head
		}
		verbs[key] = append(verbs[key], rule.Verbs...)
	}
	lines := make([]string, 0, len(order))
	for _, key := range order {
		rule := heads[key]
		rule.Verbs = verbs[key]
		lines = append(lines, describeRule(rule))
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "\n")
}

func describeRule(rule rbacv1.PolicyRule) string {
	var parts []string
	for _, part := range []struct {
		name   string
		values []string
	}{
		{"APIGroups", rule.APIGroups}, {"Resources", rule.Resources}, {"NonResourceURLs", rule.NonResourceURLs},
		{"ResourceNames", rule.ResourceNames}, {"Verbs", rule.Verbs},
	} {
		if len(part.values) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", part.name, part.values))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// copier is an object with a typed deep copy.
type copier[T any] interface {
	registry.Object
	DeepCopy() T
}

// onlyCollected says whether nothing changes but what garbage collection needs
// to let go of an object: that grants nothing.
func onlyCollected[T copier[T]](object, old T) bool {
	same := object.DeepCopy()
	same.SetOwnerReferences(old.GetOwnerReferences())
	same.SetFinalizers(old.GetFinalizers())
	same.SetSelfLink(old.GetSelfLink())
	same.SetManagedFields(old.GetManagedFields())
	return apiequality.Semantic.DeepEqual(same, old)
}
