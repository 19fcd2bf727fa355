package namespace

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
)

// tell writes what was found into the namespace's conditions and returns the
// namespace as it is then.
func (c *Controller) tell(ctx context.Context, ns *corev1.Namespace, found *findings) (*corev1.Namespace, error) {
	changed := ns.DeepCopy()
	changed.Status.Conditions = conditions(ns.Status.Conditions, found, c.now())
	if equality.Semantic.DeepEqual(ns.Status, changed.Status) {
		return ns, nil
	}
	if !found.left() && found.failure() == nil && len(ns.Status.Conditions) == 0 {
		// All went well at the first look: nobody needs to read that on a namespace
		// that is about to be gone.
		return ns, nil
	}
	return c.client.CoreV1().Namespaces().UpdateStatus(ctx, changed, metav1.UpdateOptions{})
}

// conditions returns the conditions after a look through the contents. Those that
// say the same as before keep their time.
func conditions(old []corev1.NamespaceCondition, found *findings, now time.Time) []corev1.NamespaceCondition {
	result := slices.Clone(old)
	for _, condition := range verdicts(found) {
		condition.LastTransitionTime = metav1.Time{Time: now}
		i := slices.IndexFunc(result, func(c corev1.NamespaceCondition) bool { return c.Type == condition.Type })
		if i < 0 {
			result = append(result, condition)
			continue
		}
		if result[i].Status == condition.Status {
			condition.LastTransitionTime = result[i].LastTransitionTime
		}
		result[i] = condition
	}
	return result
}

// verdicts returns all conditions the controller keeps, good or bad.
func verdicts(found *findings) []corev1.NamespaceCondition {
	all := []corev1.NamespaceCondition{
		{Type: corev1.NamespaceDeletionDiscoveryFailure, Reason: "ResourcesDiscovered", Message: "All resources successfully discovered"},
		{Type: corev1.NamespaceDeletionGVParsingFailure, Reason: "ParsedGroupVersions", Message: "All legacy kube types successfully parsed"},
		{Type: corev1.NamespaceDeletionContentFailure, Reason: "ContentDeleted", Message: "All content successfully deleted, may be waiting on finalization"},
		{Type: corev1.NamespaceContentRemaining, Reason: "ContentRemoved", Message: "All content successfully removed"},
		{Type: corev1.NamespaceFinalizersRemaining, Reason: "ContentHasNoFinalizers", Message: "All content-preserving finalizers finished"},
	}
	for i := range all {
		all[i].Status = corev1.ConditionFalse
	}
	bad := func(i int, reason, message string) {
		all[i].Status, all[i].Reason, all[i].Message = corev1.ConditionTrue, reason, message
	}
	if err := found.discovery; err != nil {
		message := err.Error()
		var groups *discovery.ErrGroupDiscoveryFailed
		if errors.As(err, &groups) {
			message = fmt.Sprintf("Discovery failed for some groups, %d failing: %v", len(groups.Groups), err)
		}
		bad(0, "DiscoveryFailed", message)
	}
	if err := found.parsing; err != nil {
		bad(1, "GroupVersionParsingFailed", err.Error())
	}
	if len(found.contents) > 0 {
		messages := make([]string, len(found.contents))
		for i, err := range found.contents {
			messages[i] = err.Error()
		}
		slices.Sort(messages)
		bad(2, "ContentDeletionFailed", fmt.Sprintf("Failed to delete all resource types, %d remaining: %s", len(messages), strings.Join(messages, ", ")))
	}
	if found.left() {
		var left []string
		for resource, count := range found.remaining {
			left = append(left, fmt.Sprintf("%s.%s has %d resource instances", resource.Resource, resource.Group, count))
		}
		slices.Sort(left)
		bad(3, "SomeResourcesRemain", "Some resources are remaining: "+strings.Join(left, ", "))
	}
	if len(found.finalizers) > 0 {
		var left []string
		for _, finalizer := range slices.Sorted(maps.Keys(found.finalizers)) {
			left = append(left, fmt.Sprintf("%s in %d resource instances", finalizer, found.finalizers[finalizer]))
		}
		bad(4, "SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: "+strings.Join(left, ", "))
	}
	return all
}
