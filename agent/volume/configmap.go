package volume

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
)

// configMapKind is a volume whose files are the keys of a config map.
func configMapKind() kind {
	return kind{
		dir:     "kubernetes.io~configmap",
		matches: func(v *v1.Volume) bool { return v.ConfigMap != nil },
		setUp: func(_ context.Context, r *request) (time.Time, error) {
			source := r.volume.ConfigMap
			object, err := r.Objects.ConfigMap(r.pod.Namespace, source.Name)
			if optional(source.Optional, err) {
				object, err = &v1.ConfigMap{}, nil
			}
			if err != nil {
				return time.Time{}, err
			}
			files, err := selectKeys(configMapData(object), source.Items, modeOr(source.DefaultMode, defaultMode), yes(source.Optional), "configmap")
			if err != nil {
				return time.Time{}, err
			}
			return time.Time{}, r.writeFiles(files, false)
		},
	}
}
