package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// SubPath bind-mounts a path inside a volume to a place of its own and returns
// that place, so that a container which replaces the path by a link cannot make
// a later container mount something else of the node. index is the mount's
// number in the container.
func (m *Manager) SubPath(uid types.UID, volumePath, volume, container string, index int, sub string) (string, error) {
	if filepath.IsAbs(sub) || !filepath.IsLocal(sub) {
		return "", fmt.Errorf("error SubPath `%s` must not be an absolute path or contain '..'", sub)
	}
	if err := createSub(volumePath, sub); err != nil {
		return "", err
	}
	fd, err := openInside(volumePath, sub)
	if err != nil {
		return "", fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", volume, container, err)
	}
	defer unix.Close(fd)
	target := filepath.Join(m.PodDir(uid), "volume-subpaths", volume, container, strconv.Itoa(index))
	if err := m.clear(target); err != nil {
		return "", err
	}
	if err := makeLike(fd, target); err != nil {
		return "", fmt.Errorf("make the mount point of subPath %q: %w", sub, err)
	}
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(fd), target, "", unix.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("bind subPath %q of volume %q: %w", sub, volume, err)
	}
	return target, nil
}

// createSub makes the directory a subPath names when nothing is there.
func createSub(volumePath, sub string) error {
	info, err := os.Stat(volumePath)
	if err != nil {
		return fmt.Errorf("look at the volume: %w", err)
	}
	if !info.IsDir() {
		return nil
	}
	root, err := os.OpenRoot(volumePath)
	if err != nil {
		return fmt.Errorf("open the volume: %w", err)
	}
	defer root.Close()
	if _, err := root.Stat(sub); err == nil {
		return nil
	}
	if err := root.MkdirAll(sub, 0o750); errors.Is(err, unix.EROFS) {
		// What is not in a volume that cannot be written is not there.
		return nil
	} else if err != nil {
		return fmt.Errorf("failed to create subPath directory for volumeMount: %w", err)
	}
	// The new directory is as open as the volume itself.
	for dir := sub; dir != "."; dir = filepath.Dir(dir) {
		if err := root.Chmod(dir, info.Mode()&(os.ModePerm|os.ModeSetgid)); err != nil {
			return fmt.Errorf("set the mode of subPath directory %q: %w", dir, err)
		}
		if filepath.Dir(dir) == "." {
			break
		}
	}
	return nil
}

// openInside opens a path without ever leaving the volume, whatever links say.
func openInside(volumePath, sub string) (int, error) {
	base, err := unix.Open(volumePath, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: volumePath, Err: err}
	}
	defer unix.Close(base)
	fd, err := unix.Openat2(base, sub, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return -1, &os.PathError{Op: "open inside the volume", Path: sub, Err: err}
	}
	return fd, nil
}

// clear removes an earlier bind mount at target.
func (m *Manager) clear(target string) error {
	if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	if !strings.HasPrefix(target, m.RootDir) {
		return fmt.Errorf("subPath target %q is outside of the agent's directory", target)
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove an earlier mount point: %w", err)
	}
	return nil
}

// makeLike makes an empty file or directory at target, like what fd is.
func makeLike(fd int, target string) error {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		return os.MkdirAll(target, 0o750)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	return f.Close()
}
