package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/atomicdir"
)

// projectedKind is a volume that joins several sources in one directory: what
// every pod has for its service account.
func projectedKind() kind {
	return kind{
		dir:     "kubernetes.io~projected",
		matches: func(v *v1.Volume) bool { return v.Projected != nil },
		setUp: func(ctx context.Context, r *request) (time.Time, error) {
			files, again, err := r.projectedFiles(ctx)
			if err != nil {
				return time.Time{}, err
			}
			return again, r.writeFiles(files, true)
		},
	}
}

func (r *request) projectedFiles(ctx context.Context) (files map[string]atomicdir.File, again time.Time, err error) {
	files = map[string]atomicdir.File{}
	mode := modeOr(r.volume.Projected.DefaultMode, defaultMode)
	var errs []error
	for i := range r.volume.Projected.Sources {
		var part map[string]atomicdir.File
		var err error
		switch source := &r.volume.Projected.Sources[i]; {
		case source.Secret != nil:
			var object *v1.Secret
			if object, err = r.Objects.Secret(r.pod.Namespace, source.Secret.Name); optional(source.Secret.Optional, err) {
				object, err = &v1.Secret{}, nil
			}
			if err == nil {
				part, err = selectKeys(object.Data, source.Secret.Items, mode, yes(source.Secret.Optional), "secret")
			}
		case source.ConfigMap != nil:
			var object *v1.ConfigMap
			if object, err = r.Objects.ConfigMap(r.pod.Namespace, source.ConfigMap.Name); optional(source.ConfigMap.Optional, err) {
				object, err = &v1.ConfigMap{}, nil
			}
			if err == nil {
				part, err = selectKeys(configMapData(object), source.ConfigMap.Items, mode, yes(source.ConfigMap.Optional), "configmap")
			}
		case source.DownwardAPI != nil:
			part, err = r.downwardFiles(source.DownwardAPI.Items, mode)
		case source.ServiceAccountToken != nil:
			var renew time.Time
			part, renew, err = r.tokenFile(ctx, source.ServiceAccountToken, mode)
			if err == nil && (again.IsZero() || renew.Before(again)) {
				again = renew
			}
		case source.ClusterTrustBundle != nil && r.TrustBundles != nil:
			var anchors []byte
			if anchors, err = r.TrustBundles.TrustBundle(ctx, r.pod.UID, source.ClusterTrustBundle); err == nil {
				part = map[string]atomicdir.File{source.ClusterTrustBundle.Path: {Data: anchors, Mode: fs.FileMode(mode)}}
			}
		default:
			err = fmt.Errorf("source %d of the projected volume is of a type this node does not provide", i)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		maps.Copy(files, part)
	}
	return files, again, errors.Join(errs...)
}

// tokenFile returns the token's file and when to renew it. A token that is on
// disk and good is kept: renewal does not depend on the agent's memory.
func (r *request) tokenFile(ctx context.Context, source *v1.ServiceAccountTokenProjection, mode int32) (map[string]atomicdir.File, time.Time, error) {
	if user := commonUser(r.pod); user != nil || fsGroup(r.pod) != nil {
		// Owner or group can read it; nobody else needs to.
		mode = 0o600
	}
	file := atomicdir.File{Mode: fs.FileMode(mode), UID: commonUser(r.pod)}
	if fsGroup(r.pod) != nil {
		file.UID = nil
	}
	if current, renew, ok := currentToken(r.path, source.Path, r.Now()); ok && r.Now().Before(renew) {
		file.Data = current
		return map[string]atomicdir.File{source.Path: file}, renew, nil
	}
	token, expires, err := r.Tokens.Token(ctx, r.pod, source.Audience, source.ExpirationSeconds)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("failed to fetch token: %w", err)
	}
	file.Data = []byte(token)
	return map[string]atomicdir.File{source.Path: file}, renewAt(r.Now(), expires), nil
}
