package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// locks give one worker at a time a PersistentVolume: pods share its stage.
type locks struct {
	// mu guards held.
	mu   sync.Mutex
	held map[string]*sync.Mutex
}

// lock locks a volume of this node by its name and returns how to unlock it.
func (m *Manager) lock(name string) (unlock func()) {
	m.locks.mu.Lock()
	if m.locks.held == nil {
		m.locks.held = map[string]*sync.Mutex{}
	}
	l := m.locks.held[name]
	if l == nil {
		l = &sync.Mutex{}
		m.locks.held[name] = l
	}
	m.locks.mu.Unlock()
	l.Lock()
	return l.Unlock
}

// release lets go of the volumes that have records: unpublishes them, and ends the
// mounts that were shared when no other pod of this node needs them.
func (m *Manager) release(ctx context.Context, uid types.UID) error {
	records, err := m.records(uid)
	if err != nil {
		return err
	}
	var errs []error
	for i := range records {
		errs = append(errs, m.releaseOne(ctx, uid, &records[i]))
	}
	return errors.Join(errs...)
}

func (m *Manager) releaseOne(ctx context.Context, uid types.UID, r *record) error {
	name := r.PersistentVolume
	if name == "" {
		name = string(uid) + "/" + r.Volume
	}
	defer m.lock(name)()
	if r.CSI != nil && r.CSI.Published {
		if err := m.unpublish(ctx, r); err != nil {
			return fmt.Errorf("unpublish volume %q: %w", r.Volume, err)
		}
	}
	if r.Path != "" && m.below(r.Path) && r.CSI == nil {
		if err := m.unmount(r.Path); err != nil {
			return err
		}
	}
	if r.Image != "" && m.ImageMounts != nil {
		if err := m.ImageMounts.RemoveImageMount(ctx, r.Image); err != nil {
			return err
		}
	}
	if r.Staged != "" {
		others, err := m.sharers(uid, r.PersistentVolume)
		if err != nil {
			return err
		}
		if len(others) == 0 {
			if err := m.unstage(ctx, r); err != nil {
				return fmt.Errorf("unstage volume %q: %w", r.PersistentVolume, err)
			}
		}
	}
	return m.drop(uid, r)
}

// unstage ends the mount that all pods of this node shared.
func (m *Manager) unstage(ctx context.Context, r *record) error {
	if r.CSI != nil {
		return m.unstageCSI(ctx, r)
	}
	if err := m.unmount(r.Staged); err != nil {
		return err
	}
	return removeDir(r.Staged)
}

// unmount ends whatever is mounted at a path; nothing is fine.
func (m *Manager) unmount(path string) error {
	for m.isMounted(path) {
		if err := m.Mounter.Unmount(path); err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	return nil
}

// removeDir removes an empty directory. It never walks into what might still be
// mounted.
func removeDir(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// refuseMounts is the last look before a pod's directory is removed: nothing may be
// mounted in it, or the removal would walk into somebody's data. It compares what the
// kernel says of each directory with the directory above, whatever the list of
// mounts says.
func (m *Manager) refuseMounts(dir string) error {
	for _, sub := range []string{"volumes", "volume-subpaths"} {
		if err := refuseMountsIn(filepath.Join(dir, sub), volumeDepth); err != nil {
			return err
		}
	}
	return nil
}

// volumeDepth is how far below "volumes" a volume can be: kind, name, "mount".
const volumeDepth = 3

func refuseMountsIn(dir string, depth int) error {
	own, err := mountID(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for a mount on %s: %w", dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		id, err := mountID(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look for a mount on %s: %w", path, err)
		}
		if err == nil && id != own {
			return fmt.Errorf("%s is still mounted: the pod's directory is kept", path)
		}
		if e.IsDir() && depth > 1 {
			if err := refuseMountsIn(path, depth-1); err != nil {
				return err
			}
		}
	}
	return nil
}

// mountID is the kernel's number of the mount that a path, not followed, is on.
func mountID(path string) (uint64, error) {
	var stat unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &stat)
	if err != nil {
		return 0, &fs.PathError{Op: "statx", Path: path, Err: err}
	}
	return stat.Mnt_id, nil
}
