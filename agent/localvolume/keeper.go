// Package localvolume makes and removes the directories behind PersistentVolumes
// that are directories of this node.
//
// In flow the volumes whose label names the node, by a watch. A volume in use has its
// directory made; a deleted one that nothing else holds has it removed, and is let go
// of in the API by taking away the finalizer that stands for the directory. Which path
// belongs to a volume follows from its name and this node's own configuration: what
// the API says of the path is never removed.
package localvolume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// Names shared with the provisioner in the control plane.
const (
	// Annotation of the Node object is the directory of its volumes.
	Annotation = "skiff.dev/local-path"
	finalizer  = "skiff.dev/local-path"
	nodeLabel  = "skiff.dev/node"
)

// Delay before a directory that could not be made or removed is tried again.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = time.Minute
)

// Keeper keeps the directories.
type Keeper struct {
	Client kubernetes.Interface
	Node   string
	// Dir holds the volumes' directories.
	Dir    string
	Logger *slog.Logger
}

// Run works until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, lastRetry))
	defer queue.ShutDown()
	context.AfterFunc(ctx, queue.ShutDown)
	factory := informers.NewSharedInformerFactoryWithOptions(k.Client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.LabelSelector = nodeLabel + "=" + k.Node
	}))
	informer := factory.Core().V1().PersistentVolumes().Informer()
	add := func(object any) {
		if volume, ok := object.(*v1.PersistentVolume); ok {
			queue.Add(volume.Name)
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, object any) { add(object) }}); err != nil {
		k.Logger.Error("watch the volumes of this node", "error", err)
		return
	}
	factory.StartWithContext(ctx)
	defer factory.Shutdown()
	for {
		name, shutdown := queue.Get()
		if shutdown {
			return
		}
		err := k.sync(ctx, informer.GetStore(), name)
		if err == nil || ctx.Err() != nil {
			queue.Forget(name)
		} else {
			k.Logger.Warn("keep the directory of a volume; trying again", "volume", name, "error", err)
			queue.AddRateLimited(name)
		}
		queue.Done(name)
	}
}

func (k *Keeper) sync(ctx context.Context, store cache.Store, name string) error {
	object, exists, err := store.GetByKey(name)
	if err != nil || !exists {
		return err
	}
	volume, ok := object.(*v1.PersistentVolume)
	if !ok || volume.Labels[nodeLabel] != k.Node || !slices.Contains(volume.Finalizers, finalizer) {
		return nil
	}
	path := filepath.Join(k.Dir, name)
	if volume.Spec.Local == nil || volume.Spec.Local.Path != path || filepath.Base(name) != name {
		return fmt.Errorf("the volume's path is not %s, where this node keeps it: nothing is made or removed", path)
	}
	if volume.DeletionTimestamp == nil {
		return k.makeDir(path)
	}
	if len(volume.Finalizers) > 1 {
		// It is still bound.
		return nil
	}
	if volume.Spec.PersistentVolumeReclaimPolicy == v1.PersistentVolumeReclaimDelete {
		if err := k.remove(path); err != nil {
			return err
		}
	}
	return k.letGo(ctx, volume)
}

// makeDir makes a directory that every user of the volume may write, like what other
// provisioners of this kind make: containers run as anybody.
func (k *Keeper) makeDir(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(k.Dir, 0o711); err != nil {
		return fmt.Errorf("make the directory of volumes: %w", err)
	}
	temporary := path + ".new"
	if err := os.Mkdir(temporary, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the volume's directory: %w", err)
	}
	// The mode must not depend on the umask, and what is there is finished.
	if err := os.Chmod(temporary, 0o777); err != nil {
		return fmt.Errorf("open the volume's directory: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("put the volume's directory in place: %w", err)
	}
	k.Logger.Info("volume made", "path", path)
	return nil
}

// remove moves the directory out of the way first, so that a removal that was cut
// short does not leave half a volume under its name.
func (k *Keeper) remove(path string) error {
	trash := path + ".deleted"
	if err := os.Rename(path, trash); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("move the volume's directory away: %w", err)
	}
	if err := os.RemoveAll(trash); err != nil {
		return fmt.Errorf("remove the volume's directory: %w", err)
	}
	k.Logger.Info("volume removed", "path", path)
	return nil
}

func (k *Keeper) letGo(ctx context.Context, volume *v1.PersistentVolume) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": volume.UID, "resourceVersion": volume.ResourceVersion, "finalizers": []string{}}})
	if err != nil {
		return fmt.Errorf("encode the end of a volume: %w", err)
	}
	_, err = k.Client.CoreV1().PersistentVolumes().Patch(ctx, volume.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("let go of the volume: %w", err)
	}
	return nil
}
