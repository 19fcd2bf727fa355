package garbagecollector

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"

	"github.com/skiff-run/skiff/control/controllers/ownership"
)

func (c *Controller) resource(item object) metadata.ResourceInterface {
	return c.metadata.Resource(item.monitor.resource).Namespace(item.namespace)
}

// delete deletes an object as it was when that was decided. If it has changed
// since, but not its owners, the decision still holds.
func (c *Controller) delete(ctx context.Context, item object, decidedOn metav1.Object, propagation metav1.DeletionPropagation) error {
	uid, version := item.uid, decidedOn.GetResourceVersion()
	err := c.resource(item).Delete(ctx, item.name, metav1.DeleteOptions{
		PropagationPolicy: &propagation, Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version},
	})
	if apierrors.IsConflict(err) {
		live, readErr := c.resource(item).Get(ctx, item.name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(readErr), readErr == nil && live.UID != uid:
			return nil
		case readErr == nil && equality.Semantic.DeepEqual(live.OwnerReferences, decidedOn.GetOwnerReferences()):
			err = c.resource(item).Delete(ctx, item.name, metav1.DeleteOptions{
				PropagationPolicy: &propagation, Preconditions: &metav1.Preconditions{UID: &uid},
			})
		}
	}
	return ignoreGone("delete", err)
}

// dropReferences removes the object's references to the owners.
func (c *Controller) dropReferences(ctx context.Context, item object, current metav1.Object, owners ...types.UID) error {
	rest := slices.DeleteFunc(slices.Clone(current.GetOwnerReferences()), func(reference metav1.OwnerReference) bool {
		return slices.Contains(owners, reference.UID)
	})
	return c.patchReferences(ctx, item, current, ownership.Removal(item.uid, owners...), rest)
}

// unblock makes the object's references stop blocking its owners' deletion.
func (c *Controller) unblock(ctx context.Context, item object, current metav1.Object) error {
	references := slices.Clone(current.GetOwnerReferences())
	for i := range references {
		references[i].BlockOwnerDeletion = new(bool)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": item.uid, "ownerReferences": references}})
	if err != nil {
		return fmt.Errorf("encode owner references: %w", err)
	}
	return c.patchReferences(ctx, item, current, patch, references)
}

// patchReferences applies a strategic merge patch or, for custom kinds, which do
// not know that, sets the references as a whole on the version they were read
// from.
func (c *Controller) patchReferences(ctx context.Context, item object, current metav1.Object, strategic []byte, references []metav1.OwnerReference) error {
	_, err := c.resource(item).Patch(ctx, item.name, types.StrategicMergePatchType, strategic, metav1.PatchOptions{})
	if apierrors.IsUnsupportedMediaType(err) {
		err = c.patchMetadata(ctx, item, current, "ownerReferences", references)
	}
	return ignoreGone("change owner references", err)
}

// removeFinalizer takes one finalizer off.
func (c *Controller) removeFinalizer(ctx context.Context, item object, current metav1.Object, finalizer string) error {
	rest := slices.DeleteFunc(slices.Clone(current.GetFinalizers()), func(name string) bool { return name == finalizer })
	return ignoreGone("remove finalizer "+finalizer, c.patchMetadata(ctx, item, current, "finalizers", rest))
}

// patchMetadata sets one field of the object's metadata, if the object has not
// changed since it was read.
func (c *Controller) patchMetadata(ctx context.Context, item object, current metav1.Object, field string, value any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": item.uid, "resourceVersion": current.GetResourceVersion(), field: value,
	}})
	if err != nil {
		return fmt.Errorf("encode %s: %w", field, err)
	}
	_, err = c.resource(item).Patch(ctx, item.name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

func ignoreGone(what string, err error) error {
	if err == nil || apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
