// Package ownership decides which objects belong to a controller object and makes
// it so: matching orphans are adopted, owned objects which no longer match are
// released. It works on metadata only and does not know what the objects are.
package ownership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Claim is one controller object's claim to objects of type T.
type Claim[T metav1.Object] struct {
	// Owner is the controller object as the informer knows it, Kind its kind.
	Owner metav1.Object
	Kind  schema.GroupVersionKind
	// Selector matches the labels of what it wants to own.
	Selector labels.Selector
	// Reread gets the owner from the API. It is asked before the first adoption:
	// an owner being deleted must not adopt what its deletion has just orphaned.
	Reread func(ctx context.Context) (metav1.Object, error)
	// Patch applies a strategic merge patch to an object.
	Patch func(ctx context.Context, object T, patch []byte) error
}

// Objects returns those of the given objects that the owner now owns.
func (c *Claim[T]) Objects(ctx context.Context, objects []T) ([]T, error) {
	var claimed []T
	var failures []error
	var adoptable error
	asked := false
	for _, object := range objects {
		switch decide(c.Owner, object, c.Selector) {
		case keep:
			claimed = append(claimed, object)
		case release:
			if err := c.release(ctx, object); err != nil {
				failures = append(failures, err)
			}
		case adopt:
			if !asked {
				adoptable, asked = c.mayAdopt(ctx), true
			}
			err := adoptable
			if err == nil {
				err = c.Patch(ctx, object, adoption(c.Owner, c.Kind, object.GetUID()))
			}
			switch {
			case err == nil:
				claimed = append(claimed, object)
			case !apierrors.IsNotFound(err):
				failures = append(failures, fmt.Errorf("adopt %s/%s: %w", object.GetNamespace(), object.GetName(), err))
			}
		case ignore:
		}
	}
	return claimed, errors.Join(failures...)
}

// release gives up an object. That it is gone, or another one of that name, is
// as good.
func (c *Claim[T]) release(ctx context.Context, object T) error {
	err := c.Patch(ctx, object, Removal(object.GetUID(), c.Owner.GetUID()))
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsInvalid(err) {
		return nil
	}
	return fmt.Errorf("release %s/%s: %w", object.GetNamespace(), object.GetName(), err)
}

func (c *Claim[T]) mayAdopt(ctx context.Context) error {
	fresh, err := c.Reread(ctx)
	if err != nil {
		return fmt.Errorf("can't recheck DeletionTimestamp: %w", err)
	}
	if fresh.GetUID() != c.Owner.GetUID() {
		return fmt.Errorf("original %s %s/%s is gone: got uid %s, wanted %s",
			c.Kind.Kind, c.Owner.GetNamespace(), c.Owner.GetName(), fresh.GetUID(), c.Owner.GetUID())
	}
	if fresh.GetDeletionTimestamp() != nil {
		return fmt.Errorf("%s/%s has just been deleted at %s", fresh.GetNamespace(), fresh.GetName(), fresh.GetDeletionTimestamp())
	}
	return nil
}

type verdict int

const (
	ignore verdict = iota
	keep
	adopt
	release
)

// decide tells what owner should do about object.
func decide(owner, object metav1.Object, selector labels.Selector) verdict {
	matches := selector.Matches(labels.Set(object.GetLabels()))
	ownerDeleted := owner.GetDeletionTimestamp() != nil
	controller := metav1.GetControllerOfNoCopy(object)
	switch {
	case controller != nil && controller.UID != owner.GetUID():
		return ignore
	case controller != nil && matches:
		// Needs no action, so it holds for an owner being deleted as well.
		return keep
	case ownerDeleted:
		return ignore
	case controller != nil:
		return release
	case matches && object.GetDeletionTimestamp() == nil && owner.GetNamespace() == object.GetNamespace():
		return adopt
	}
	return ignore
}

// adoption is the patch that makes owner the controller of the object with the
// given UID; the UID in it makes it fail for a namesake.
func adoption(owner metav1.Object, kind schema.GroupVersionKind, object types.UID) []byte {
	return encode(map[string]any{
		"uid":             object,
		"ownerReferences": []metav1.OwnerReference{*metav1.NewControllerRef(owner, kind)},
	})
}

// Removal is the strategic merge patch that removes the owners from the object
// with the given UID.
func Removal(object types.UID, owners ...types.UID) []byte {
	references := make([]map[string]any, 0, len(owners))
	for _, owner := range owners {
		references = append(references, map[string]any{"$patch": "delete", "uid": owner})
	}
	return encode(map[string]any{"uid": object, "ownerReferences": references})
}

func encode(metadata map[string]any) []byte {
	// Strings, slices and maps of them always encode.
	patch, _ := json.Marshal(map[string]any{"metadata": metadata})
	return patch
}
