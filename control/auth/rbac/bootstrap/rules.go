// Package bootstrap holds the roles and bindings that every Kubernetes cluster
// has from its first minute, and puts them into the API at start-up: what is
// missing is added, what an administrator added stays, and an object annotated
// rbac.authorization.kubernetes.io/autoupdate=false is left alone.
//
// The policy is data: a line is one rule. The names and rules are those of
// Kubernetes 1.37; roles for kinds and controllers that do not exist here yet
// join with them, except in admin, edit and view, which people copy.
package bootstrap

import (
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	read  = "get list watch"
	write = "create update patch delete deletecollection"
)

// groups are the short names of API groups in rules.
var groups = map[string]string{
	"core": "", "apps": "apps", "extensions": "extensions", "authentication": "authentication.k8s.io",
	"authorization": "authorization.k8s.io", "autoscaling": "autoscaling", "batch": "batch", "certificates": "certificates.k8s.io",
	"coordination": "coordination.k8s.io", "discovery": "discovery.k8s.io", "events": "events.k8s.io", "networking": "networking.k8s.io",
	"node": "node.k8s.io", "policy": "policy", "rbac": "rbac.authorization.k8s.io", "resource": "resource.k8s.io",
	"storage": "storage.k8s.io", "metrics": "metrics.k8s.io", "*": "*",
}

// on is a rule about resources: verbs, API groups by their short names and
// resources, each a list with blanks between; names limits it to objects.
func on(verbs, apiGroups, resources string, names ...string) rbacv1.PolicyRule {
	rule := rbacv1.PolicyRule{Verbs: strings.Fields(verbs), Resources: strings.Fields(resources), ResourceNames: names}
	for _, short := range strings.Fields(apiGroups) {
		rule.APIGroups = append(rule.APIGroups, groups[short])
	}
	return rule
}

// at is a rule about paths that are no resources.
func at(verbs string, paths ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: strings.Fields(verbs), NonResourceURLs: paths}
}

// recordEvents is the rule of everybody who tells what happened.
func recordEvents() rbacv1.PolicyRule { return on("create update patch", "core events", "events") }

func metadata(name string, labels ...string) metav1.ObjectMeta {
	meta := metav1.ObjectMeta{
		Name:        name,
		Labels:      map[string]string{"kubernetes.io/bootstrapping": "rbac-defaults"},
		Annotations: map[string]string{rbacv1.AutoUpdateAnnotationKey: "true"},
	}
	for _, label := range labels {
		meta.Labels[label] = "true"
	}
	return meta
}

func clusterRole(name string, rules ...rbacv1.PolicyRule) rbacv1.ClusterRole {
	return rbacv1.ClusterRole{ObjectMeta: metadata(name), Rules: rules}
}

// aggregate is a role that consists of all roles with a label.
func aggregate(name, label string, labels ...string) rbacv1.ClusterRole {
	return rbacv1.ClusterRole{
		ObjectMeta: metadata(name, labels...),
		AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
			{MatchLabels: map[string]string{label: "true"}},
		}},
	}
}

func bindCluster(role string, subjects ...rbacv1.Subject) rbacv1.ClusterRoleBinding {
	return rbacv1.ClusterRoleBinding{
		ObjectMeta: metadata(role), Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
	}
}

func group(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: name}
}

func person(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: name}
}

func account(namespace, name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}
}
