package volume

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
)

// secretKind is a volume whose files are the keys of a secret. They never
// touch the disk.
func secretKind() kind {
	return kind{
		dir:     "kubernetes.io~secret",
		matches: func(v *v1.Volume) bool { return v.Secret != nil },
		setUp: func(_ context.Context, r *request) (time.Time, error) {
			source := r.volume.Secret
			object, err := r.Objects.Secret(r.pod.Namespace, source.SecretName)
			if optional(source.Optional, err) {
				object, err = &v1.Secret{}, nil
			}
			if err != nil {
				return time.Time{}, err
			}
			files, err := selectKeys(object.Data, source.Items, modeOr(source.DefaultMode, defaultMode), yes(source.Optional), "secret")
			if err != nil {
				return time.Time{}, err
			}
			return time.Time{}, r.writeFiles(files, true)
		},
	}
}
