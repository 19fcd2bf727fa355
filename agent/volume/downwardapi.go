package volume

import (
	"context"
	"fmt"
	"io/fs"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/atomicdir"
	"github.com/skiff-run/skiff/agent/downward"
)

// downwardKind is a volume whose files tell the pod about itself.
func downwardKind() kind {
	return kind{
		dir:     "kubernetes.io~downward-api",
		matches: func(v *v1.Volume) bool { return v.DownwardAPI != nil },
		setUp: func(_ context.Context, r *request) (time.Time, error) {
			files, err := r.downwardFiles(r.volume.DownwardAPI.Items, modeOr(r.volume.DownwardAPI.DefaultMode, defaultMode))
			if err != nil {
				return time.Time{}, err
			}
			return time.Time{}, r.writeFiles(files, true)
		},
	}
}

func (r *request) downwardFiles(items []v1.DownwardAPIVolumeFile, mode int32) (map[string]atomicdir.File, error) {
	files := map[string]atomicdir.File{}
	for i := range items {
		item := &items[i]
		var text string
		var err error
		switch {
		case item.FieldRef != nil:
			text, err = downward.Field(r.pod, item.FieldRef.FieldPath, r.node.Addresses)
		case item.ResourceFieldRef != nil:
			container := containerNamed(r.pod, item.ResourceFieldRef.ContainerName)
			if container == nil {
				return nil, fmt.Errorf("container %s not found", item.ResourceFieldRef.ContainerName)
			}
			text, err = downward.Resource(container, item.ResourceFieldRef, r.node.Allocatable)
		}
		if err != nil {
			return nil, fmt.Errorf("file %q: %w", item.Path, err)
		}
		files[item.Path] = atomicdir.File{Data: []byte(text), Mode: fs.FileMode(modeOr(item.Mode, mode))}
	}
	return files, nil
}

func containerNamed(pod *v1.Pod, name string) *v1.Container {
	for _, containers := range [][]v1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			if containers[i].Name == name {
				return &containers[i]
			}
		}
	}
	return nil
}
