package csi

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

// nodeIDAnnotation of a Node tells attachers what each driver calls the node.
const nodeIDAnnotation = "csi.volume.kubernetes.io/nodeid"

// announce tells the API of a driver.
func (r *Registry) announce(ctx context.Context, d *Driver) error {
	node, err := r.Client.CoreV1().Nodes().Get(ctx, r.Node, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read node: %w", err)
	}
	topology := d.Info.GetAccessibleTopology().GetSegments()
	if err := r.labelNode(ctx, node, d, topology); err != nil {
		return err
	}
	own := storagev1.CSINodeDriver{Name: d.Name, NodeID: d.Info.GetNodeId(), TopologyKeys: slices.Sorted(maps.Keys(topology))}
	if limit := d.Info.GetMaxVolumesPerNode(); limit > 0 {
		count := int32(min(limit, math.MaxInt32))
		own.Allocatable = &storagev1.VolumeNodeResources{Count: &count}
	}
	return r.change(ctx, node, func(drivers []storagev1.CSINodeDriver) []storagev1.CSINodeDriver {
		for i := range drivers {
			if drivers[i].Name == d.Name {
				if equality.Semantic.DeepEqual(drivers[i], own) {
					return drivers
				}
				drivers = slices.Delete(drivers, i, i+1)
				break
			}
		}
		return append(drivers, own)
	})
}

// withdraw tells the API that a driver is gone.
func (r *Registry) withdraw(ctx context.Context, name string) error {
	return r.change(ctx, nil, func(drivers []storagev1.CSINodeDriver) []storagev1.CSINodeDriver {
		return slices.DeleteFunc(drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == name })
	})
}

// change edits the drivers of this node's CSINode, making it for a node that is given.
func (r *Registry) change(ctx context.Context, node *v1.Node, edit func([]storagev1.CSINodeDriver) []storagev1.CSINodeDriver) error {
	nodes := r.Client.StorageV1().CSINodes()
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		current, err := nodes.Get(ctx, r.Node, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			if node == nil {
				return nil
			}
			_, err = nodes.Create(ctx, &storagev1.CSINode{
				ObjectMeta: metav1.ObjectMeta{Name: r.Node, OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: r.Node, UID: node.UID}}},
				Spec:       storagev1.CSINodeSpec{Drivers: edit(nil)},
			}, metav1.CreateOptions{})
			return err
		}
		if err != nil {
			return err
		}
		changed := current.DeepCopy()
		if changed.Spec.Drivers = edit(changed.Spec.Drivers); equality.Semantic.DeepEqual(changed.Spec, current.Spec) {
			return nil
		}
		if changed.Spec.Drivers == nil {
			changed.Spec.Drivers = []storagev1.CSINodeDriver{}
		}
		_, err = nodes.Update(ctx, changed, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("write CSINode %s: %w", r.Node, err)
	}
	return nil
}

func (r *Registry) labelNode(ctx context.Context, node *v1.Node, d *Driver, topology map[string]string) error {
	for key, value := range topology {
		if has, is := node.Labels[key]; is && has != value {
			return fmt.Errorf("detected topology value collision: driver reported %q:%q but existing label is %q:%q", key, value, key, has)
		}
	}
	ids := map[string]string{}
	if text := node.Annotations[nodeIDAnnotation]; text != "" {
		if err := json.Unmarshal([]byte(text), &ids); err != nil {
			return fmt.Errorf("read annotation %s of node %s: %w", nodeIDAnnotation, node.Name, err)
		}
	}
	ids[d.Name] = d.Info.GetNodeId()
	text, err := json.Marshal(ids)
	if err != nil {
		return fmt.Errorf("encode annotation %s: %w", nodeIDAnnotation, err)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": topology, "annotations": map[string]string{nodeIDAnnotation: string(text)}}})
	if err != nil {
		return fmt.Errorf("encode labels of node %s: %w", node.Name, err)
	}
	if _, err := r.Client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("label node %s: %w", node.Name, err)
	}
	return nil
}
