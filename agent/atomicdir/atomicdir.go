// Package atomicdir writes a set of files into a directory so that a reader
// sees either the old set or the new one, never a mixture.
//
// The files live in a directory of their own whose name begins with two dots;
// the link ..data points to it, and every name a reader uses is a link through
// ..data. A new set is a new directory and one rename of ..data. This is the
// layout that programs watching config maps rely on.
package atomicdir

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

const (
	dataLink    = "..data"
	newDataLink = "..data_tmp"
	// maxPath is the longest path a file may have below the directory.
	maxPath = 4096
)

// File is one file of the set.
type File struct {
	Data []byte
	Mode fs.FileMode
	// UID owns the file, when set.
	UID *int64
}

// Write makes dir hold exactly files, by relative path. prepare may adjust the
// new files (ownership) before anybody sees them; it gets their directory. It
// returns whether anything changed.
func Write(dir string, files map[string]File, prepare func(dataDir string) error) (changed bool, err error) {
	for name := range files {
		if err := validate(name); err != nil {
			return false, err
		}
	}
	oldData, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read the link of the current files: %w", err)
	}
	if oldData != "" && same(filepath.Join(dir, oldData), files) {
		// A crash between the swap and the links is repaired here.
		return false, link(dir, files)
	}
	newData, err := os.MkdirTemp(dir, ".."+time.Now().UTC().Format("2006_01_02_15_04_05."))
	if err != nil {
		return false, fmt.Errorf("make a directory for the new files: %w", err)
	}
	if err := fill(newData, files, prepare); err != nil {
		return false, errors.Join(err, os.RemoveAll(newData))
	}
	temporary := filepath.Join(dir, newDataLink)
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("remove a left-over link: %w", err)
	}
	if err := os.Symlink(filepath.Base(newData), temporary); err != nil {
		return false, fmt.Errorf("link the new files: %w", err)
	}
	if err := os.Rename(temporary, filepath.Join(dir, dataLink)); err != nil {
		return false, fmt.Errorf("put the new files in place: %w", err)
	}
	if err := link(dir, files); err != nil {
		return true, err
	}
	return true, sweep(dir, files, filepath.Base(newData))
}

func validate(name string) error {
	clean := path.Clean(name)
	switch {
	case name == "" || path.IsAbs(name):
		return fmt.Errorf("file name %q must be a relative path", name)
	case len(name) > maxPath:
		return fmt.Errorf("file name %q is longer than %d characters", name, maxPath)
	case clean == ".." || strings.HasPrefix(clean, "../"):
		return fmt.Errorf("file name %q must not lead out of the volume", name)
	case strings.HasPrefix(name, ".."):
		return fmt.Errorf("file name %q must not begin with '..'", name)
	}
	for _, part := range strings.Split(name, "/") {
		if part == ".." {
			return fmt.Errorf("file name %q must not contain '..'", name)
		}
	}
	return nil
}

func fill(dir string, files map[string]File, prepare func(string) error) error {
	// The directory itself may be entered by the container's user.
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("open the directory of the new files: %w", err)
	}
	for name, file := range files {
		target := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return fmt.Errorf("make the directory of file %q: %w", name, err)
		}
		if err := os.WriteFile(target, file.Data, file.Mode.Perm()); err != nil {
			return fmt.Errorf("write file %q: %w", name, err)
		}
		// The mode must not depend on the umask.
		if err := os.Chmod(target, file.Mode.Perm()); err != nil {
			return fmt.Errorf("set the mode of file %q: %w", name, err)
		}
		if file.UID != nil {
			if err := os.Chown(target, int(*file.UID), -1); err != nil {
				return fmt.Errorf("set the owner of file %q: %w", name, err)
			}
		}
	}
	if prepare != nil {
		return prepare(dir)
	}
	return nil
}

// same reports whether dir holds exactly the files. Modes are compared as far
// as prepare does not change them: the owner's bits.
func same(dir string, files map[string]File) bool {
	found := 0
	err := filepath.WalkDir(dir, func(p string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return nil
		}
		relative, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		want, ok := files[relative]
		if !ok {
			return fs.ErrExist
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if !bytes.Equal(data, want.Data) || info.Mode().Perm()&0o700 != want.Mode.Perm()&0o700 {
			return fs.ErrExist
		}
		found++
		return nil
	})
	return err == nil && found == len(files)
}

// link makes the names readers use: one link per top-level name.
func link(dir string, files map[string]File) error {
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		at := filepath.Join(dir, top)
		target := filepath.Join(dataLink, top)
		if existing, err := os.Readlink(at); err == nil && existing == target {
			continue
		}
		if err := os.Symlink(target, at); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("link file %q: %w", top, err)
		}
	}
	return nil
}

// sweep removes links to files that are gone and directories of older sets.
func sweep(dir string, files map[string]File, keep string) error {
	wanted := map[string]bool{dataLink: true, keep: true}
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		wanted[top] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list the volume: %w", err)
	}
	var errs []error
	for _, e := range entries {
		isOurs := strings.HasPrefix(e.Name(), "..") || e.Type()&fs.ModeSymlink != 0
		if !wanted[e.Name()] && isOurs {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
