// Package durable writes files that several programs of a machine share:
// each is replaced at once or not at all, and stays its owner's whoever writes it.
//
// The daemons do not all run as the user that types commands: skiff-control may
// be a user of its own. A file that is replaced keeps its owner, group and mode; a
// new one belongs to the owner and group of its folder and is readable by that
// owner only. Who prepares a folder decides with its owner who can use what is
// written there later. The package knows nothing of what it writes.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// folderMode is that of a folder that has to be made.
const folderMode fs.FileMode = 0o700

// WriteFile replaces the file at path, or makes it, and its folder when that is
// missing. A link at path stays, and the file it names is replaced. Errors name
// the path.
func WriteFile(path string, data []byte) error {
	target, err := follow(path)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	folder := filepath.Dir(target)
	if err := os.MkdirAll(folder, folderMode); err != nil {
		return fmt.Errorf("make folder of %s: %w", path, err)
	}
	temporary, err := os.CreateTemp(folder, "."+filepath.Base(target)+"-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(temporary.Name()) // after the rename there is nothing by that name
	err = inherit(temporary, target)
	if err == nil {
		_, err = temporary.Write(data)
	}
	if err == nil {
		err = temporary.Sync()
	}
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), target)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// follow returns the path that a link at path names, or the path itself. One
// link is followed: ours do not lead to others. A link that neither root nor we
// have made is not trusted, but replaced: a folder may be a daemon's own, and what
// root writes there must not end up elsewhere.
func follow(path string) (string, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().Type() != fs.ModeSymlink {
		return path, nil
	}
	if err != nil {
		return "", err
	}
	if maker := ids(info).user; maker != 0 && int(maker) != os.Geteuid() {
		return path, nil
	}
	target, err := os.Readlink(path)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(path), target)
	}
	return target, nil
}

// inherit gives the file, which nobody else can open yet, the owner, group and
// mode of what it replaces or else the owner and group of its folder.
func inherit(file *os.File, target string) error {
	model, err := os.Lstat(target)
	replaces := err == nil && model.Mode().IsRegular()
	if !replaces {
		if model, err = os.Stat(filepath.Dir(target)); err != nil {
			return err
		}
	}
	own, err := file.Stat()
	if err != nil {
		return err
	}
	had, has := ids(model), ids(own)
	// Only root gives files away. Anybody else writes where it may, and a folder
	// with the set-group-ID bit decides of the group.
	if had != has && os.Geteuid() == 0 {
		if err := file.Chown(int(had.user), int(had.group)); err != nil {
			return err
		}
	}
	if replaces && model.Mode().Perm() != own.Mode().Perm() {
		return file.Chmod(model.Mode().Perm())
	}
	return nil
}

type owner struct{ user, group uint32 }

// ids are the owner and group of a file on a file system of Linux.
func ids(info fs.FileInfo) owner {
	system, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return owner{}
	}
	return owner{system.Uid, system.Gid}
}
