// Package node authorizes agents: a node may read what the pods on it refer
// to, and write its own node, lease and pods; nothing else of the cluster. With
// the NodeRestriction admission plugin it confines a machine that was broken
// into to itself.
//
// What pods refer to is looked up at each decision among the pods of that
// node, of which there are about a hundred: no graph is kept that could be
// behind.
package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

const (
	userPrefix = "system:node:"
	nodesGroup = "system:nodes"
)

// Name returns the node's name if the user is an agent.
func Name(who user.Info) (string, bool) {
	name, prefixed := strings.CutPrefix(who.GetName(), userPrefix)
	return name, prefixed && slices.Contains(who.GetGroups(), nodesGroup)
}

// Pods lists the pods that are bound to a node. Objects are read-only.
type Pods func(node string) []*corev1.Pod

// Authorizer implements authorizer.Authorizer for agents and has no opinion on
// anybody else.
type Authorizer struct {
	pods    Pods
	volumes Volumes
	// allowed decides by the rules of the role system:node, the outer bound.
	allowed func(authorizer.Attributes, []rbacv1.PolicyRule) bool
	rules   []rbacv1.PolicyRule
}

// New returns an authorizer. rules are those of the role system:node, and
// allows decides by rules as RBAC does.
func New(pods Pods, volumes Volumes, rules []rbacv1.PolicyRule, allows func(authorizer.Attributes, []rbacv1.PolicyRule) bool) *Authorizer {
	return &Authorizer{pods: pods, volumes: volumes, rules: rules, allowed: allows}
}

// Authorize implements authorizer.Authorizer.
func (a *Authorizer) Authorize(_ context.Context, request authorizer.Attributes) (authorizer.Decision, string, error) {
	node, isNode := Name(request.GetUser())
	if !isNode {
		return authorizer.DecisionNoOpinion, "", nil
	}
	if request.IsResourceRequest() {
		if decide, narrowed := narrow[request.GetAPIGroup()+"/"+request.GetResource()]; narrowed {
			if why := decide(a, node, request); why != "" {
				return authorizer.DecisionNoOpinion, why, nil
			}
			return authorizer.DecisionAllow, "", nil
		}
	}
	if a.allowed(request, a.rules) {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

// ConditionsAwareAuthorize implements authorizer.Authorizer: there are no conditions.
func (a *Authorizer) ConditionsAwareAuthorize(ctx context.Context, request authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(a.Authorize(ctx, request))
}

// EvaluateConditions implements authorizer.Authorizer.
func (a *Authorizer) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}

// narrow holds the resources that are judged by more than the role, by group
// and resource. A decision returns why not, empty for yes.
var narrow = map[string]func(*Authorizer, string, authorizer.Attributes) string{
	"/secrets":                   readReferenced(secrets),
	"/configmaps":                readReferenced(configMaps),
	"/serviceaccounts":           serviceAccounts,
	"/pods":                      pods,
	"/nodes":                     nodes,
	"coordination.k8s.io/leases": leases,

	"/persistentvolumeclaims":          persistentVolumeClaims,
	"/persistentvolumes":               persistentVolumes,
	"storage.k8s.io/volumeattachments": volumeAttachments,
	"storage.k8s.io/csinodes":          csiNodes,
}

func noRelation(node string) string {
	return fmt.Sprintf("no relationship found between node '%s' and this object", node)
}

// readReferenced allows reading single objects that a pod on the node names.
func readReferenced(names func(*corev1.PodSpec, func(string))) func(*Authorizer, string, authorizer.Attributes) string {
	return func(a *Authorizer, node string, request authorizer.Attributes) string {
		switch {
		case !slices.Contains([]string{"get", "list", "watch"}, request.GetVerb()):
			return "can only read resources of this type"
		case request.GetSubresource() != "":
			return "cannot read subresource"
		case request.GetNamespace() == "":
			return "can only read namespaced object of this type"
		case request.GetName() == "":
			return "No Object name found"
		}
		if a.refers(node, request.GetNamespace(), request.GetName(), names) {
			return ""
		}
		if request.GetResource() == "secrets" && a.volumeNeedsSecret(node, request.GetNamespace(), request.GetName()) {
			return ""
		}
		return noRelation(node)
	}
}

func (a *Authorizer) refers(node, namespace, name string, names func(*corev1.PodSpec, func(string))) bool {
	found := false
	for _, pod := range a.pods(node) {
		// A mirror pod is made by the node itself: it must not open doors.
		if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror || pod.Namespace != namespace {
			continue
		}
		names(&pod.Spec, func(other string) { found = found || other == name })
	}
	return found
}

func serviceAccounts(a *Authorizer, node string, request authorizer.Attributes) string {
	switch {
	case request.GetVerb() == "get" && request.GetSubresource() == "":
	case request.GetVerb() != "create" || request.GetName() == "":
		return "can only create tokens for individual service accounts"
	case request.GetSubresource() != "token":
		return "can only create token subresource of serviceaccount"
	}
	account := func(spec *corev1.PodSpec, see func(string)) { see(spec.ServiceAccountName) }
	if !a.refers(node, request.GetNamespace(), request.GetName(), account) {
		return noRelation(node)
	}
	return ""
}

func pods(a *Authorizer, node string, request authorizer.Attributes) string {
	switch verb := request.GetVerb(); verb {
	case "get":
		if request.GetSubresource() != "" {
			return "cannot get subresource"
		}
		for _, pod := range a.pods(node) {
			if pod.Namespace == request.GetNamespace() && pod.Name == request.GetName() {
				return ""
			}
		}
		return noRelation(node)
	case "list", "watch":
		selector, err := request.GetFieldSelector()
		if err == nil {
			for _, requirement := range selector {
				if requirement.Field == "spec.nodeName" && requirement.Value == node && (requirement.Operator == "=" || requirement.Operator == "==") {
					return ""
				}
			}
		}
		return "can only list/watch pods with spec.nodeName field selector"
	}
	// Writes are bounded by the role and by NodeRestriction.
	if a.allowed(request, a.rules) {
		return ""
	}
	return "a node may not do this to pods"
}

func nodes(a *Authorizer, node string, request authorizer.Attributes) string {
	switch request.GetVerb() {
	case "create":
		return ""
	case "get", "update", "patch", "list", "watch":
		// The pod network needs every node's range; writes only its own.
		if request.GetVerb() == "get" || request.GetVerb() == "list" || request.GetVerb() == "watch" {
			if request.GetSubresource() != "" {
				return "cannot read subresource"
			}
			return ""
		}
		if request.GetName() != node {
			return fmt.Sprintf("node '%s' cannot %s other nodes", node, request.GetVerb())
		}
		if sub := request.GetSubresource(); sub != "" && sub != "status" {
			return "can only update the status subresource"
		}
		return ""
	}
	return "a node may not do this to nodes"
}

func leases(_ *Authorizer, node string, request authorizer.Attributes) string {
	switch {
	case !slices.Contains([]string{"get", "create", "update", "patch", "delete"}, request.GetVerb()):
		return "can only get, create, update, patch, or delete a node lease"
	case request.GetNamespace() != corev1.NamespaceNodeLease:
		return "can only access leases in the \"kube-node-lease\" system namespace"
	case request.GetVerb() != "create" && request.GetName() != node:
		return "can only access node lease with the same name as the requesting node"
	}
	return ""
}
