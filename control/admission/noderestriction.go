package admission

import (
	"context"
	"maps"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/skiff-run/skiff/control/auth/node"
)

// nodeRestriction lets an agent change only its own node and lease, the status
// of pods bound to it, and mirror pods of its own.
type nodeRestriction struct {
	operations
	pods corelisters.PodLister
}

func newNodeRestriction(c Config) *nodeRestriction {
	return &nodeRestriction{on(admission.Create, admission.Update, admission.Delete), c.Informers.Core().V1().Pods().Lister()}
}

// Validate implements admission.ValidationInterface.
func (n *nodeRestriction) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	name, isNode := node.Name(a.GetUserInfo())
	if !isNode {
		return nil
	}
	switch a.GetResource().GroupResource() {
	case schema.GroupResource{Resource: "pods"}:
		return n.pod(name, a)
	case schema.GroupResource{Resource: "nodes"}:
		return n.node(name, a)
	case schema.GroupResource{Resource: "serviceaccounts"}:
		return n.token(name, a)
	case schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}:
		return n.lease(name, a)
	case schema.GroupResource{Resource: "persistentvolumeclaims"}:
		return claimStatus(name, a)
	case schema.GroupResource{Resource: "persistentvolumes"}:
		return ownVolume(name, a)
	case schema.GroupResource{Group: "storage.k8s.io", Resource: "csinodes"}:
		return csiNode(name, a)
	case schema.GroupResource{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"}:
		return nodeRequest(name, a)
	}
	return nil
}

func (n *nodeRestriction) pod(name string, a admission.Attributes) error {
	switch a.GetSubresource() {
	case "":
	case "status":
		old, ok := a.GetOldObject().(*corev1.Pod)
		if !ok || old.Spec.NodeName != name {
			return forbidden(a, "node %q can only update pod status for pods with spec.nodeName set to itself", name)
		}
		if pod, ok := a.GetObject().(*corev1.Pod); !ok || !maps.Equal(pod.Labels, old.Labels) {
			return forbidden(a, "node %q cannot update labels through pod status", name)
		}
		return nil
	case "eviction":
		target := a.GetName()
		if eviction, ok := a.GetObject().(*policyv1.Eviction); ok && target == "" {
			target = eviction.Name
		}
		return n.own(name, a, target, "evict")
	default:
		return forbidden(a, "unexpected pod subresource %q, only 'status' and 'eviction' are allowed", a.GetSubresource())
	}
	switch a.GetOperation() {
	case admission.Create:
		return mirrorOf(name, a)
	case admission.Delete:
		return n.own(name, a, a.GetName(), "delete")
	}
	return forbidden(a, "unexpected operation %q, node %q can only create and delete mirror pods", a.GetOperation(), name)
}

func mirrorOf(name string, a admission.Attributes) error {
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok {
		return forbidden(a, "unexpected type %T", a.GetObject())
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; !mirror {
		return forbidden(a, "pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, name)
	}
	if pod.Spec.NodeName != name {
		return forbidden(a, "node %q can only create pods with spec.nodeName set to itself", name)
	}
	for _, owner := range pod.OwnerReferences {
		if len(pod.OwnerReferences) > 1 || owner.Kind != "Node" || owner.Name != name || owner.APIVersion != "v1" {
			return forbidden(a, "node %q can only create pods with an owner reference set to itself", name)
		}
		if owner.BlockOwnerDeletion != nil && *owner.BlockOwnerDeletion {
			return forbidden(a, "node %q must not set blockOwnerDeletion on an owner reference", name)
		}
	}
	return nil
}

// own refuses what concerns another node's pod.
func (n *nodeRestriction) own(name string, a admission.Attributes, pod, verb string) error {
	found, err := n.pods.Pods(a.GetNamespace()).Get(pod)
	if err != nil {
		return admission.NewForbidden(a, err)
	}
	if found.Spec.NodeName != name {
		return forbidden(a, "node %q can only %s pods with spec.nodeName set to itself", name, verb)
	}
	return nil
}

func (n *nodeRestriction) node(name string, a admission.Attributes) error {
	target := a.GetName()
	object, _ := a.GetObject().(*corev1.Node)
	if a.GetOperation() == admission.Create && object != nil {
		target = object.Name
	}
	if target != name {
		return forbidden(a, "node %q is not allowed to modify node %q", name, target)
	}
	if object == nil {
		return nil
	}
	if a.GetOperation() == admission.Create {
		if reserved := reservedLabels(object.Labels); len(reserved) > 0 {
			return forbidden(a, "node %q is not allowed to set the following labels: %s", name, strings.Join(reserved, ", "))
		}
		return nil
	}
	old, ok := a.GetOldObject().(*corev1.Node)
	if a.GetOperation() != admission.Update || !ok {
		return nil
	}
	if a.GetSubresource() == "" {
		if !apiequality.Semantic.DeepEqual(object.Spec.Taints, old.Spec.Taints) {
			return forbidden(a, "node %q is not allowed to modify taints", name)
		}
		if !apiequality.Semantic.DeepEqual(object.OwnerReferences, old.OwnerReferences) {
			return forbidden(a, "node %q is not allowed to modify ownerReferences", name)
		}
	}
	changed := map[string]string{}
	for key, value := range object.Labels {
		if before, had := old.Labels[key]; !had || before != value {
			changed[key] = value
		}
	}
	for key, value := range old.Labels {
		if _, has := object.Labels[key]; !has {
			changed[key] = value
		}
	}
	if reserved := reservedLabels(changed); len(reserved) > 0 {
		return forbidden(a, "is not allowed to modify labels: %s", strings.Join(reserved, ", "))
	}
	return nil
}

// kubeletLabels are the labels of Kubernetes' own domains that a node may give itself.
var kubeletLabels = []string{
	corev1.LabelHostname, corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion,
	corev1.LabelInstanceType, corev1.LabelInstanceTypeStable, corev1.LabelOSStable, corev1.LabelArchStable, "beta.kubernetes.io/os", "beta.kubernetes.io/arch",
}

// reservedLabels are those that would let a node draw pods to itself that an
// administrator keeps from it.
func reservedLabels(labels map[string]string) []string {
	var reserved []string
	for key := range labels {
		domain, _, qualified := strings.Cut(key, "/")
		if !qualified || slices.Contains(kubeletLabels, key) {
			continue
		}
		of := func(suffix string) bool { return domain == suffix || strings.HasSuffix(domain, "."+suffix) }
		switch {
		case of("node-restriction.kubernetes.io"):
			reserved = append(reserved, key)
		case of("kubelet.kubernetes.io"), of("node.kubernetes.io"):
		case of("kubernetes.io"), of("k8s.io"):
			reserved = append(reserved, key)
		}
	}
	slices.Sort(reserved)
	return reserved
}

// token lets a node ask only for tokens bound to a pod on it.
func (n *nodeRestriction) token(name string, a admission.Attributes) error {
	request, ok := a.GetObject().(*authenticationv1.TokenRequest)
	if a.GetOperation() != admission.Create || a.GetSubresource() != "token" || !ok {
		return nil
	}
	bound := request.Spec.BoundObjectRef
	if bound == nil || bound.APIVersion != "v1" || bound.Kind != "Pod" || bound.Name == "" {
		return forbidden(a, "node requested token not bound to a pod")
	}
	if bound.UID == "" {
		return forbidden(a, "node requested token with a pod binding without a uid")
	}
	pod, err := n.pods.Pods(a.GetNamespace()).Get(bound.Name)
	if err != nil {
		return admission.NewForbidden(a, err)
	}
	if pod.UID != bound.UID {
		return forbidden(a, "the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", bound.UID)
	}
	if pod.Spec.NodeName != name {
		return forbidden(a, "node requested token bound to a pod scheduled on a different node")
	}
	return nil
}

func (n *nodeRestriction) lease(name string, a admission.Attributes) error {
	if a.GetNamespace() != corev1.NamespaceNodeLease {
		return forbidden(a, "can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
	}
	target := a.GetName()
	if lease, ok := a.GetObject().(*coordinationv1.Lease); ok && a.GetOperation() == admission.Create {
		target = lease.Name
	}
	if target != name {
		return forbidden(a, "can only access node lease with the same name as the requesting node")
	}
	return nil
}
