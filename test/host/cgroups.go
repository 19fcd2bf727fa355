package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// cgroupLimit is how long a cgroup may stay busy after its last process ended.
const cgroupLimit = 5 * time.Second

// removeCgroups removes a cgroup without processes, with all below it, from
// every hierarchy.
func removeCgroups(cgroup string) error {
	roots, err := filepath.Glob("/sys/fs/cgroup/*" + cgroup)
	if err != nil {
		return fmt.Errorf("find cgroup %s: %w", cgroup, err)
	}
	roots = append(roots, "/sys/fs/cgroup"+cgroup)
	ctx, cancel := context.WithTimeout(context.Background(), cgroupLimit)
	defer cancel()
	var errs []error
	for _, root := range roots {
		errs = append(errs, removeTree(ctx, root))
	}
	return errors.Join(errs...)
}

func removeTree(ctx context.Context, root string) error {
	var folders []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			folders = append(folders, path)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list cgroup %s: %w", root, err)
	}
	slices.Reverse(folders) // children first
	for _, folder := range folders {
		// The kernel lets go of a cgroup a moment after its last process ended
		// and offers nothing to wait on.
		for {
			err := syscall.Rmdir(folder)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			if !errors.Is(err, syscall.EBUSY) || ctx.Err() != nil {
				return fmt.Errorf("remove cgroup %s: %w", folder, err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}
