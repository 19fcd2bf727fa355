package runtime

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	// kindImageVolume marks the views that volumes are.
	kindImageVolume = "image-volume"
	// gcRoot keeps a snapshot from containerd's collector though nothing refers to it.
	gcRoot = "containerd.io/gc.root"
)

// MountImage shows the files of an image that is present at target, a directory: nobody
// may write them or execute them as programs. key names the mount to containerd until
// RemoveImageMount; a second call with the same key goes on where the first ended.
func (r *Runtime) MountImage(ctx context.Context, image, key, target string) error {
	found, err := r.images.Get(ctx, image)
	if err != nil {
		return fmt.Errorf("find image %q: %w", image, err)
	}
	service := r.client.SnapshotService(r.options.Snapshotter)
	labels := snapshots.WithLabels(map[string]string{kindLabel: kindImageVolume, gcRoot: time.Now().UTC().Format(time.RFC3339)})
	mounts, err := service.View(ctx, key, found.ChainID, labels)
	if errdefs.IsNotFound(err) {
		if err := r.images.Unpack(ctx, found); err != nil {
			return err
		}
		mounts, err = service.View(ctx, key, found.ChainID, labels)
	}
	if errdefs.IsAlreadyExists(err) {
		mounts, err = service.Mounts(ctx, key)
	}
	if err != nil {
		return fmt.Errorf("make a view of image %q: %w", image, err)
	}
	if err := mount.All(mounts, target); err != nil {
		return fmt.Errorf("mount image %q: %w", image, err)
	}
	if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("restrict the mount of image %q: %w", image, err)
	}
	return nil
}

// RemoveImageMount lets containerd forget a view whose mount was ended. It may be repeated.
func (r *Runtime) RemoveImageMount(ctx context.Context, key string) error {
	if err := r.client.SnapshotService(r.options.Snapshotter).Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove the view %s of an image: %w", key, err)
	}
	return nil
}

// removeImageMounts removes every view that a volume is or was.
func (r *Runtime) removeImageMounts(ctx context.Context) error {
	service := r.client.SnapshotService(r.options.Snapshotter)
	var keys []string
	err := service.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		keys = append(keys, info.Name)
		return nil
	}, fmt.Sprintf("labels.%q==%s", kindLabel, kindImageVolume))
	if err != nil {
		return fmt.Errorf("list the views of images: %w", err)
	}
	return errors.Join(each(keys, func(key string) error { return r.RemoveImageMount(ctx, key) })...)
}
