package environ

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	v1 "k8s.io/api/core/v1"
	"path/filepath"
)

// fileKey reads one variable from an env file that an init container left in
// an emptyDir volume.
func (b *builder) fileKey(ref *v1.FileKeySelector) (string, bool, error) {
	optional := ref.Optional != nil && *ref.Optional
	dir, ok := b.Files.VolumePath(ref.VolumeName)
	if !ok {
		return "", false, fmt.Errorf("cannot find the volume %q referenced by FileKeyRef", ref.VolumeName)
	}
	// OpenInRoot keeps a link in the volume from leading out of it.
	f, err := os.OpenInRoot(dir, filepath.Clean(ref.Path))
	if errors.Is(err, os.ErrNotExist) && optional {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("couldn't parse env file")
	}
	defer f.Close()
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		line := strings.TrimSpace(scanner.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, found := strings.Cut(line, "=")
		if !found {
			return "", false, fmt.Errorf("couldn't parse env file")
		}
		if strings.TrimSpace(key) == ref.Key {
			return strings.Trim(strings.TrimSpace(value), "'"), true, nil
		}
	}
	if err := scanner.Err(); err != nil {
		return "", false, fmt.Errorf("couldn't parse env file")
	}
	if optional {
		return "", false, nil
	}
	return "", false, fmt.Errorf("environment variable key %q not found in file %q", ref.Key, ref.Path)
}
