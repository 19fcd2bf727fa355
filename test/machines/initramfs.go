package machines

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/cavaliergopher/cpio"
)

// archive is a RAM disk under construction. Names have no leading slash.
type archive struct {
	writer *cpio.Writer
	has    map[string]bool
}

func newArchive(to *bytes.Buffer) *archive {
	return &archive{writer: cpio.NewWriter(to), has: map[string]bool{}}
}

// folder adds a folder and those above it.
func (a *archive) folder(name string) error {
	if name == "." || a.has[name] {
		return nil
	}
	if err := a.folder(filepath.Dir(name)); err != nil {
		return err
	}
	return a.entry(&cpio.Header{Name: name, Mode: cpio.TypeDir | 0o755}, nil)
}

func (a *archive) entry(header *cpio.Header, content []byte) error {
	if a.has[header.Name] {
		return nil
	}
	a.has[header.Name] = true
	header.Size = int64(len(content))
	if err := a.writer.WriteHeader(header); err != nil {
		return fmt.Errorf("add %s: %w", header.Name, err)
	}
	if _, err := a.writer.Write(content); err != nil {
		return fmt.Errorf("add %s: %w", header.Name, err)
	}
	return nil
}

func (a *archive) file(name string, mode fs.FileMode, content []byte) error {
	if err := a.folder(filepath.Dir(name)); err != nil {
		return err
	}
	return a.entry(&cpio.Header{Name: name, Mode: cpio.TypeReg | cpio.FileMode(mode.Perm())}, content)
}

func (a *archive) link(name, target string) error {
	if err := a.folder(filepath.Dir(name)); err != nil {
		return err
	}
	return a.entry(&cpio.Header{Name: name, Mode: cpio.TypeSymlink | 0o777, Linkname: target}, []byte(target))
}

// merged is where a file of this machine lies in the RAM disk, whose /bin, /lib
// and /sbin are links into /usr, as everywhere today.
func merged(path string) string {
	name := strings.TrimPrefix(path, "/")
	for _, top := range []string{"bin/", "sbin/", "lib/", "lib64/"} {
		if strings.HasPrefix(name, top) {
			return "usr/" + name
		}
	}
	return name
}

// copied adds a file of this machine, at its own place, with what its links
// lead to and the libraries it is linked with.
func (a *archive) copied(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("copy into the RAM disk: %w", err)
	}
	if a.has[merged(path)] {
		return nil
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(path)
		if err != nil {
			return fmt.Errorf("copy into the RAM disk: %w", err)
		}
		if err := a.link(merged(path), target); err != nil {
			return err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		return a.copied(target)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("copy into the RAM disk: %w", err)
	}
	if err := a.file(merged(path), info.Mode(), content); err != nil {
		return err
	}
	if !bytes.HasPrefix(content, []byte("\x7fELF")) {
		return nil
	}
	libraries, err := linkedWith(path)
	if err != nil {
		return err
	}
	for _, library := range libraries {
		if err := a.copied(library); err != nil {
			return err
		}
	}
	return nil
}

var absolute = regexp.MustCompile(`(?m)(?:=> |^\s*)(/\S+) \(0x`)

// linkedWith are the libraries that a program or library is loaded with.
func linkedWith(path string) ([]string, error) {
	output, err := exec.Command("ldd", path).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && strings.Contains(string(output), "not a dynamic executable") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find the libraries of %s: %w: %s", path, err, output)
	}
	var libraries []string
	for _, match := range absolute.FindAllStringSubmatch(string(output), -1) {
		libraries = append(libraries, match[1])
	}
	return libraries, nil
}
