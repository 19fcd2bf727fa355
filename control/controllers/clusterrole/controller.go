// Package clusterrole fills ClusterRoles that have an aggregation rule with the
// rules of the roles they select: kube-controller-manager's
// clusterrole-aggregation-controller. In flow ClusterRoles by informer, out flow
// their rules by server-side apply.
package clusterrole

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	rbacconfigurations "k8s.io/client-go/applyconfigurations/rbac/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	rbaclisters "k8s.io/client-go/listers/rbac/v1"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// fieldManager owns the rules that are written.
const fieldManager = "clusterrole-aggregation-controller"

// Controller aggregates ClusterRoles.
type Controller struct {
	client  kubernetes.Interface
	roles   rbaclisters.ClusterRoleLister
	sources []reconcile.Source
	queue   *reconcile.Queue[string]
}

// New returns a controller on the client and the informers, which the caller
// starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) *Controller {
	roles := factory.Rbac().V1().ClusterRoles()
	c := &Controller{client: client, roles: roles.Lister()}
	c.queue = reconcile.NewQueue("clusterrole", 1, logger, c.reconcile)
	c.sources = []reconcile.Source{{Informer: roles.Informer(), Handler: reconcile.OnAny(c.changed)}}
	return c
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	return reconcile.Run(ctx, c.sources, c.queue)
}

// changed wakes every aggregating role: it may have selected the changed one
// before, or do so now.
func (c *Controller) changed(*rbacv1.ClusterRole) {
	roles, err := c.roles.List(labels.Everything())
	if err != nil {
		return
	}
	for _, role := range roles {
		if role.AggregationRule != nil {
			c.queue.Add(role.Name)
		}
	}
}

func (c *Controller) reconcile(ctx context.Context, name string) error {
	role, err := c.roles.Get(name)
	if apierrors.IsNotFound(err) || (err == nil && role.AggregationRule == nil) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read cluster role: %w", err)
	}
	all, err := c.roles.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list cluster roles: %w", err)
	}
	rules, err := aggregate(role, all)
	if err != nil {
		return err
	}
	if equality.Semantic.DeepEqual(rules, role.Rules) {
		return nil
	}
	apply := rbacconfigurations.ClusterRole(name)
	for _, rule := range rules {
		one := rbacconfigurations.PolicyRule()
		one.Verbs, one.APIGroups, one.Resources = rule.Verbs, rule.APIGroups, rule.Resources
		one.ResourceNames, one.NonResourceURLs = rule.ResourceNames, rule.NonResourceURLs
		apply.WithRules(one)
	}
	if _, err := c.client.RbacV1().ClusterRoles().Apply(ctx, apply, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
		return fmt.Errorf("apply rules: %w", err)
	}
	return nil
}

// aggregate returns the rules of the roles that role selects, each once, in the
// order of its selectors and of the roles' names.
func aggregate(role *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) ([]rbacv1.PolicyRule, error) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b *rbacv1.ClusterRole) int { return strings.Compare(a.Name, b.Name) })
	rules := []rbacv1.PolicyRule{}
	for i := range role.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, fmt.Errorf("aggregation rule of cluster role %s: %w", role.Name, err)
		}
		for _, other := range all {
			if other.Name == role.Name || !selector.Matches(labels.Set(other.Labels)) {
				continue
			}
			for _, rule := range other.Rules {
				if !slices.ContainsFunc(rules, func(known rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(known, rule) }) {
					rules = append(rules, rule)
				}
			}
		}
	}
	return rules, nil
}
