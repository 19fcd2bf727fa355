// Package rbac decides requests by Roles and ClusterRoles and what binds them,
// as the rbac.authorization.k8s.io API describes it.
//
// It reads roles and bindings through a Source at every decision, so a change
// counts from the next request on; it keeps nothing and writes nothing.
package rbac

import (
	"context"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Source is where roles and bindings are read. Objects are read-only. A role
// that is not there is an error that apierrors.IsNotFound knows.
type Source interface {
	Role(namespace, name string) (*rbacv1.Role, error)
	RoleBindings(namespace string) ([]*rbacv1.RoleBinding, error)
	ClusterRole(name string) (*rbacv1.ClusterRole, error)
	ClusterRoleBindings() ([]*rbacv1.ClusterRoleBinding, error)
}

// Authorizer implements authorizer.Authorizer and authorizer.RuleResolver. It
// is safe for concurrent use when its Source is.
type Authorizer struct{ source Source }

// New returns an authorizer on the source.
func New(source Source) *Authorizer { return &Authorizer{source: source} }

// Source is where it reads.
func (a *Authorizer) Source() Source { return a.source }

// Authorize allows what a rule allows and has no opinion on the rest.
func (a *Authorizer) Authorize(ctx context.Context, request authorizer.Attributes) (authorizer.Decision, string, error) {
	var allowed string
	var errs []error
	a.visit(request.GetUser(), request.GetNamespace(), func(source source, rule *rbacv1.PolicyRule, err error) bool {
		if err != nil {
			errs = append(errs, err)
			return true
		}
		if ruleAllows(request, rule) {
			allowed = source.String()
			return false
		}
		return true
	})
	if allowed != "" {
		return authorizer.DecisionAllow, "RBAC: allowed by " + allowed, nil
	}
	if len(errs) > 0 {
		return authorizer.DecisionNoOpinion, fmt.Sprintf("RBAC: %v", utilerrors.NewAggregate(errs)), nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

// ConditionsAwareAuthorize implements authorizer.Authorizer: RBAC has no conditions.
func (a *Authorizer) ConditionsAwareAuthorize(ctx context.Context, request authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(a.Authorize(ctx, request))
}

// EvaluateConditions implements authorizer.Authorizer.
func (a *Authorizer) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}

// RulesOf returns every rule that holds for the user in the namespace, the
// cluster-wide ones included. An error accompanies the rules that were found.
func (a *Authorizer) RulesOf(subject user.Info, namespace string) ([]rbacv1.PolicyRule, error) {
	var rules []rbacv1.PolicyRule
	var errs []error
	a.visit(subject, namespace, func(_ source, rule *rbacv1.PolicyRule, err error) bool {
		if err != nil {
			errs = append(errs, err)
		} else {
			rules = append(rules, *rule)
		}
		return true
	})
	return rules, utilerrors.NewAggregate(errs)
}

// RoleRules returns the rules behind a reference from a binding in the
// namespace (empty for a ClusterRoleBinding).
func (a *Authorizer) RoleRules(reference rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	switch reference.Kind {
	case "Role":
		role, err := a.source.Role(namespace, reference.Name)
		if err != nil {
			return nil, err
		}
		return role.Rules, nil
	case "ClusterRole":
		role, err := a.source.ClusterRole(reference.Name)
		if err != nil {
			return nil, err
		}
		return role.Rules, nil
	}
	return nil, fmt.Errorf("unsupported role reference kind: %q", reference.Kind)
}

// RulesFor implements authorizer.RuleResolver.
func (a *Authorizer) RulesFor(_ context.Context, subject user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	rules, err := a.RulesOf(subject, namespace)
	var resources []authorizer.ResourceRuleInfo
	var others []authorizer.NonResourceRuleInfo
	for _, rule := range rules {
		if len(rule.Resources) > 0 {
			resources = append(resources, &authorizer.DefaultResourceRuleInfo{
				Verbs: rule.Verbs, APIGroups: rule.APIGroups, Resources: rule.Resources, ResourceNames: rule.ResourceNames,
			})
		}
		if len(rule.NonResourceURLs) > 0 {
			others = append(others, &authorizer.DefaultNonResourceRuleInfo{Verbs: rule.Verbs, NonResourceURLs: rule.NonResourceURLs})
		}
	}
	return resources, others, err != nil, err
}

// visit shows every rule that holds for the user, with what it comes from,
// until see returns false.
func (a *Authorizer) visit(subject user.Info, namespace string, see func(source source, rule *rbacv1.PolicyRule, err error) bool) {
	show := func(reference rbacv1.RoleRef, namespace string, source source) bool {
		rules, err := a.RoleRules(reference, namespace)
		if apierrors.IsNotFound(err) {
			return see(source, nil, err)
		}
		if err != nil {
			return see(source, nil, fmt.Errorf("read %s %q: %w", reference.Kind, reference.Name, err))
		}
		for i := range rules {
			if !see(source, &rules[i], nil) {
				return false
			}
		}
		return true
	}
	bindings, err := a.source.ClusterRoleBindings()
	if err != nil && !see(source{}, nil, fmt.Errorf("list ClusterRoleBindings: %w", err)) {
		return
	}
	for _, binding := range bindings {
		i := slices.IndexFunc(binding.Subjects, func(s rbacv1.Subject) bool { return isSubject(subject, &s, "") })
		if i >= 0 && !show(binding.RoleRef, "", source{"ClusterRoleBinding", binding.Name, "", binding.RoleRef, &binding.Subjects[i]}) {
			return
		}
	}
	if namespace == "" {
		return
	}
	local, err := a.source.RoleBindings(namespace)
	if err != nil && !see(source{}, nil, fmt.Errorf("list RoleBindings in %s: %w", namespace, err)) {
		return
	}
	for _, binding := range local {
		i := slices.IndexFunc(binding.Subjects, func(s rbacv1.Subject) bool { return isSubject(subject, &s, namespace) })
		if i >= 0 && !show(binding.RoleRef, namespace, source{"RoleBinding", binding.Name + "/" + namespace, namespace, binding.RoleRef, &binding.Subjects[i]}) {
			return
		}
	}
}

// source is the binding that a rule comes from. It is put into words only for
// the rule that decides.
type source struct {
	kind, name string
	namespace  string // of the binding
	role       rbacv1.RoleRef
	subject    *rbacv1.Subject
}

// String is the reason as Kubernetes gives it.
func (s source) String() string {
	who := fmt.Sprintf("%s %q", s.subject.Kind, s.subject.Name)
	if s.subject.Kind == rbacv1.ServiceAccountKind {
		in := s.subject.Namespace
		if in == "" {
			in = s.namespace
		}
		who = fmt.Sprintf("%s %q", s.subject.Kind, s.subject.Name+"/"+in)
	}
	return fmt.Sprintf("%s %q of %s %q to %s", s.kind, s.name, s.role.Kind, s.role.Name, who)
}

// isSubject says whether a binding's subject means the user. A service account
// without a namespace means the binding's own.
func isSubject(who user.Info, subject *rbacv1.Subject, namespace string) bool {
	switch subject.Kind {
	case rbacv1.UserKind:
		return subject.Name == who.GetName()
	case rbacv1.GroupKind:
		return slices.Contains(who.GetGroups(), subject.Name)
	case rbacv1.ServiceAccountKind:
		if subject.Namespace != "" {
			namespace = subject.Namespace
		}
		return namespace != "" && serviceaccount.MatchesUsername(namespace, subject.Name, who.GetName())
	}
	return false
}

func ruleAllows(request authorizer.Attributes, rule *rbacv1.PolicyRule) bool {
	if !contains(rule.Verbs, request.GetVerb(), rbacv1.VerbAll) {
		return false
	}
	if !request.IsResourceRequest() {
		return slices.ContainsFunc(rule.NonResourceURLs, func(pattern string) bool {
			prefix, wild := strings.CutSuffix(pattern, "*")
			return pattern == request.GetPath() || wild && strings.HasPrefix(request.GetPath(), prefix)
		})
	}
	return contains(rule.APIGroups, request.GetAPIGroup(), rbacv1.APIGroupAll) &&
		resourceMatches(rule.Resources, request.GetResource(), request.GetSubresource()) &&
		(len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, request.GetName()))
}

func contains(values []string, value, all string) bool {
	return slices.ContainsFunc(values, func(v string) bool { return v == value || v == all })
}

// resourceMatches honours pods, pods/log, */scale and *.
func resourceMatches(resources []string, resource, subresource string) bool {
	combined := resource
	if subresource != "" {
		combined += "/" + subresource
	}
	return slices.ContainsFunc(resources, func(r string) bool {
		return r == rbacv1.ResourceAll || r == combined || subresource != "" && r == "*/"+subresource
	})
}

// RulesAllow says whether any of the rules allows the request.
func RulesAllow(request authorizer.Attributes, rules []rbacv1.PolicyRule) bool {
	for i := range rules {
		if ruleAllows(request, &rules[i]) {
			return true
		}
	}
	return false
}
