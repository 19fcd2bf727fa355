package podworker

import (
	"context"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ensureImageVolumes pulls and mounts the images that a container mounts as volumes. How
// that fails is told like the failures of the container's own image.
func (w *worker) ensureImageVolumes(ctx context.Context, pod *v1.Pod, spec *v1.Container, sandbox *runtimeapi.PodSandboxConfig) error {
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		if volume.Image == nil || !mounts(spec, volume.Name) {
			continue
		}
		as := &v1.Container{Name: spec.Name, Image: volume.Image.Reference, ImagePullPolicy: volume.Image.PullPolicy}
		image, err := w.Images.Ensure(ctx, pod, as, w.pullSecrets(pod), sandbox)
		if err != nil {
			return err
		}
		if err := w.Volumes.SetUpImage(ctx, pod, volume.Name, image.Ref); err != nil {
			return err
		}
	}
	return nil
}

func mounts(spec *v1.Container, volume string) bool {
	for i := range spec.VolumeMounts {
		if spec.VolumeMounts[i].Name == volume {
			return true
		}
	}
	return false
}
