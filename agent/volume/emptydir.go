package volume

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// emptyDirKind is scratch space that lives as long as the pod: a directory on
// disk, a tmpfs, or a hugetlbfs.
func emptyDirKind() kind {
	return kind{
		dir:     "kubernetes.io~empty-dir",
		matches: func(v *v1.Volume) bool { return v.EmptyDir != nil },
		setUp: func(_ context.Context, r *request) (time.Time, error) {
			return time.Time{}, r.setUpEmptyDir()
		},
	}
}

func (r *request) setUpEmptyDir() error {
	existed, err := r.makeDir(0o777)
	if err != nil {
		return err
	}
	switch medium := r.volume.EmptyDir.Medium; {
	case medium == v1.StorageMediumDefault:
	case medium == v1.StorageMediumMemory:
		mounted, err := r.ensureMounted("tmpfs", tmpfsOptions(r.memoryLimit(), kernelRelease()))
		if err != nil {
			return err
		}
		existed = existed && !mounted
	case strings.HasPrefix(string(medium), string(v1.StorageMediumHugePages)):
		size, err := r.pageSize()
		if err != nil {
			return err
		}
		mounted, err := r.ensureMounted("hugetlbfs", []string{"pagesize=" + size})
		if err != nil {
			return err
		}
		existed = existed && !mounted
	default:
		return fmt.Errorf("unknown storage medium %q", medium)
	}
	if existed {
		// What the containers made of modes and owners is theirs.
		return nil
	}
	if err := os.Chmod(r.path, 0o777); err != nil {
		return fmt.Errorf("open the volume to the containers: %w", err)
	}
	return setOwnership(r.path, fsGroup(r.pod), false, v1.FSGroupChangeAlways)
}

// memoryLimit is the size of a memory volume: its own limit, else the pod's
// memory limit, else the machine's memory.
func (r *request) memoryLimit() int64 {
	size := r.MemoryCapacity
	limits := resourcehelper.PodLimits(r.pod, resourcehelper.PodResourcesOptions{})
	if limit, ok := limits[v1.ResourceMemory]; ok && limit.Value() > 0 && limit.Value() < size {
		size = limit.Value()
	}
	if own := r.volume.EmptyDir.SizeLimit; own != nil && own.Value() > 0 && own.Value() < size {
		size = own.Value()
	}
	return size
}

// pageSize returns the huge page size of the volume: the one its medium names,
// or the only one the pod asks for.
func (r *request) pageSize() (string, error) {
	medium := string(r.volume.EmptyDir.Medium)
	if size, ok := strings.CutPrefix(medium, string(v1.StorageMediumHugePagesPrefix)); ok {
		return strings.TrimSuffix(size, "i"), nil
	}
	found := map[string]bool{}
	for _, containers := range [][]v1.Container{r.pod.Spec.InitContainers, r.pod.Spec.Containers} {
		for i := range containers {
			for name := range containers[i].Resources.Requests {
				if size, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix); ok {
					found[strings.TrimSuffix(size, "i")] = true
				}
			}
		}
	}
	if len(found) > 1 {
		return "", fmt.Errorf("medium: %s can't be used if container requests multiple huge page sizes", medium)
	}
	for size := range found {
		return size, nil
	}
	return "", fmt.Errorf("medium %s: hugePages storage requested, but there is no resource request for huge pages", medium)
}

// makeDir makes the volume's directory; existed tells whether it was there.
func (r *request) makeDir(mode os.FileMode) (existed bool, err error) {
	if info, err := os.Stat(r.path); err == nil && info.IsDir() {
		return true, nil
	}
	if err := os.MkdirAll(r.path, mode); err != nil {
		return false, fmt.Errorf("make the volume's directory: %w", err)
	}
	return false, nil
}

// ensureMounted mounts a file system on the volume's directory unless one is
// mounted already.
func (r *request) ensureMounted(fsType string, options []string) (mounted bool, err error) {
	not, err := r.Mounter.IsLikelyNotMountPoint(r.path)
	if err != nil {
		return false, fmt.Errorf("look for a mount on %s: %w", r.path, err)
	}
	if !not {
		return false, nil
	}
	if err := r.Mounter.MountSensitiveWithoutSystemd(fsType, r.path, fsType, options, nil); err != nil {
		return false, fmt.Errorf("mount %s on %s: %w", fsType, r.path, err)
	}
	return true, nil
}
