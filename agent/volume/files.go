package volume

import (
	"fmt"
	"io/fs"
	"maps"
	"os"

	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/atomicdir"
)

// defaultMode is the mode of files whose volume names none.
const defaultMode int32 = 0o644

// writeFiles brings the volume to hold exactly the files: on a tmpfs when they
// are not for disk.
func (r *request) writeFiles(files map[string]atomicdir.File, inMemory bool) error {
	if _, err := r.makeDir(0o755); err != nil {
		return err
	}
	if inMemory {
		if _, err := r.ensureMounted("tmpfs", tmpfsOptions(r.memoryForFiles(), kernelRelease())); err != nil {
			return err
		}
		if err := os.Chmod(r.path, 0o777|fs.ModeSticky); err != nil {
			return fmt.Errorf("open the volume to the containers: %w", err)
		}
	}
	group := fsGroup(r.pod)
	changed, err := atomicdir.Write(r.path, files, func(dataDir string) error { return setOwnership(dataDir, group, true, v1.FSGroupChangeAlways) })
	if err != nil {
		return err
	}
	if changed && group != nil {
		if err := os.Lchown(r.path, -1, int(*group)); err != nil {
			return fmt.Errorf("set the group of the volume: %w", err)
		}
	}
	return nil
}

func (r *request) memoryForFiles() int64 {
	limits := r.pod.Spec.Containers
	size := r.MemoryCapacity
	for i := range limits {
		if q, ok := limits[i].Resources.Limits[v1.ResourceMemory]; ok && q.Value() > 0 && len(limits) == 1 {
			size = min(size, q.Value())
		}
	}
	return size
}

// selectKeys projects an object's data into files: every key, or the items.
// kind names the object in errors.
func selectKeys(data map[string][]byte, items []v1.KeyToPath, mode int32, optional bool, kind string) (map[string]atomicdir.File, error) {
	files := map[string]atomicdir.File{}
	if len(items) == 0 {
		for name, content := range data {
			files[name] = atomicdir.File{Data: content, Mode: fs.FileMode(mode)}
		}
		return files, nil
	}
	for _, item := range items {
		content, ok := data[item.Key]
		if !ok {
			if optional {
				continue
			}
			return nil, missingKey(kind, item.Key)
		}
		fileMode := mode
		if item.Mode != nil {
			fileMode = *item.Mode
		}
		files[item.Path] = atomicdir.File{Data: content, Mode: fs.FileMode(fileMode)}
	}
	return files, nil
}

// missingKey words the error as users know it.
func missingKey(kind, key string) error {
	if kind == "configmap" {
		return fmt.Errorf("configmap references non-existent config key: %s", key)
	}
	return fmt.Errorf("references non-existent secret key: %s", key)
}

// configMapData joins text and binary keys.
func configMapData(object *v1.ConfigMap) map[string][]byte {
	data := make(map[string][]byte, len(object.Data)+len(object.BinaryData))
	for k, v := range object.Data {
		data[k] = []byte(v)
	}
	maps.Copy(data, object.BinaryData)
	return data
}

func modeOr(mode *int32, fallback int32) int32 {
	if mode == nil {
		return fallback
	}
	return *mode
}

func yes(flag *bool) bool { return flag != nil && *flag }
