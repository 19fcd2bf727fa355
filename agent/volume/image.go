package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
)

// ImageMounts mounts images that are present.
type ImageMounts interface {
	MountImage(ctx context.Context, image, key, target string) error
	RemoveImageMount(ctx context.Context, key string) error
}

// imageKind is a volume whose files are those of an image. It is made by SetUpImage when
// the first container that mounts it starts, because then the image has been pulled.
func imageKind() kind {
	return kind{
		dir:     "kubernetes.io~image",
		matches: func(v *v1.Volume) bool { return v.Image != nil },
		setUp: func(_ context.Context, r *request) (time.Time, error) {
			if r.ImageMounts == nil {
				return time.Time{}, fmt.Errorf("no volume plugin matched")
			}
			return time.Time{}, nil
		},
	}
}

// SetUpImage mounts an image that is present as a volume of the pod.
func (m *Manager) SetUpImage(ctx context.Context, pod *v1.Pod, volume, image string) error {
	target := filepath.Join(m.PodDir(pod.UID), "volumes", imageKind().dir, volume)
	if m.isMounted(target) {
		return nil
	}
	kept := &record{Volume: volume, Path: target, Image: "skiff-volume-" + string(pod.UID) + "-" + volume}
	// Written first: whatever comes of the mount is found again.
	if err := m.keep(pod.UID, kept); err != nil {
		return err
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("make the directory of volume %q: %w", volume, err)
	}
	if err := m.ImageMounts.MountImage(ctx, image, kept.Image, target); err != nil {
		return fmt.Errorf("failed to mount image volume %q: %w", volume, err)
	}
	return nil
}
