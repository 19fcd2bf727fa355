package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/skiff-run/skiff/internal/testenv"
)

// shared is a folder that is made once for all tests of a process.
type shared struct {
	what    string
	fill    func(dir string) error
	once    sync.Once
	dir     string
	release func()
	err     error
}

var (
	programs = &shared{what: "skiff-build", fill: build}
	images   = &shared{what: "skiff-images", fill: makeImages}
)

// Build builds the programs once for all tests of a process and returns their folder.
func Build(t testing.TB) string {
	t.Helper()
	return programs.get(t)
}

// Clean removes what the tests of this process shared; TestMain calls it last.
func Clean() error { return errors.Join(programs.remove(), images.remove()) }

func sharedTraces(name string) testenv.Traces {
	return testenv.Traces{Dir: filepath.Join(os.TempDir(), "skiff-test-"+name)}
}

func (s *shared) get(t testing.TB) string {
	t.Helper()
	s.once.Do(func() {
		var name string
		if name, s.release, s.err = testenv.Hold(s.what, sharedTraces); s.err != nil {
			return
		}
		s.dir = sharedTraces(name).Dir
		if s.err = os.Mkdir(s.dir, 0o700); s.err == nil {
			s.err = s.fill(s.dir)
		}
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.dir
}

func (s *shared) remove() error {
	if s.release == nil {
		return nil
	}
	defer s.release()
	return os.RemoveAll(s.dir)
}

// build builds the programs as the Makefile does, so that the two share the
// compiler's cache.
func build(dir string) error {
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the module: %w", err)
	}
	flags, err := exec.Command("make", "--no-print-directory", "-s", "-C", strings.TrimSpace(string(module)), "print-ldflags").Output()
	if err != nil {
		return fmt.Errorf("ask the Makefile for the flags of the linker: %w", err)
	}
	command := exec.Command("go", "build", "-trimpath", "-ldflags", strings.TrimSpace(string(flags)), "-o", dir+"/", "github.com/skiff-run/skiff/cmd/...")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, output)
	}
	return nil
}
