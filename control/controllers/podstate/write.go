package podstate

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
)

// PatchStatus writes what the new status has changed against the old, whatever the
// agent has written in between, to this pod and not to a later namesake.
func PatchStatus(ctx context.Context, client kubernetes.Interface, old, changed *corev1.Pod) error {
	before, err := json.Marshal(corev1.Pod{Status: old.Status})
	if err != nil {
		return fmt.Errorf("encode status of pod %s/%s: %w", old.Namespace, old.Name, err)
	}
	after, err := json.Marshal(corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: old.UID}, Status: changed.Status})
	if err != nil {
		return fmt.Errorf("encode status of pod %s/%s: %w", old.Namespace, old.Name, err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
	if err != nil {
		return fmt.Errorf("compare status of pod %s/%s: %w", old.Namespace, old.Name, err)
	}
	_, err = client.CoreV1().Pods(old.Namespace).Patch(ctx, old.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("patch status of pod %s/%s: %w", old.Namespace, old.Name, err)
	}
	return nil
}
