// Command rooms checks which packages of this module import which: the rules
// between the rooms of the house, as docs/architecture.md gives them. It runs
// where golangci-lint is not installed; .golangci.yml holds the same rules.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

const module = "github.com/skiff-run/skiff/"

// rule forbids the packages below a room to import others.
type rule struct {
	room      string
	forbidden []string
	why       string
}

var rules = []rule{
	{"control", []string{module + "agent", module + "runtime", module + "proxy"}, "the control plane talks to nodes through the API only"},
	{"agent", []string{module + "control", module + "raftstore", module + "proxy"}, "an agent talks to the API server only"},
	{"runtime", []string{module + "control", module + "raftstore", module + "proxy", module + "agent"}, "the runtime knows containerd, not the cluster"},
	{"proxy", []string{module + "control", module + "raftstore", module + "agent", module + "runtime"}, "a proxy talks to the API server only"},
	{"raftstore", []string{"k8s.io/", module}, "the store knows bytes, not Kubernetes"},
	{"", []string{module + "cmd/", "k8s.io/kubernetes"}, "nothing imports a main, and nothing of the product imports k8s.io/kubernetes"},
}

func main() {
	if err := check(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check() error {
	output, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		return fmt.Errorf("list packages: %w", err)
	}
	var errs []error
	for decoder := json.NewDecoder(strings.NewReader(string(output))); ; {
		var listed struct {
			ImportPath string
			Imports    []string
		}
		if err := decoder.Decode(&listed); errors.Is(err, io.EOF) {
			return errors.Join(errs...)
		} else if err != nil {
			return fmt.Errorf("read package list: %w", err)
		}
		for _, r := range rules {
			errs = append(errs, r.check(listed.ImportPath, listed.Imports)...)
		}
	}
}

func (r rule) check(path string, imports []string) []error {
	own := module + r.room
	if r.room != "" && path != own && !strings.HasPrefix(path, own+"/") {
		return nil
	}
	var errs []error
	for _, imported := range imports {
		for _, forbidden := range r.forbidden {
			below := strings.HasPrefix(imported, forbidden)
			inside := r.room != "" && (imported == own || strings.HasPrefix(imported, own+"/"))
			ownCommand := command(path) != "" && command(path) == command(imported) && imported != command(path)
			if below && !inside && !ownCommand {
				errs = append(errs, fmt.Errorf("%s imports %s: %s", path, imported, r.why))
			}
		}
	}
	return errs
}

// command is the main package that a package is, or is a part of; empty
// outside cmd.
func command(path string) string {
	name, below := strings.CutPrefix(path, module+"cmd/")
	if !below {
		return ""
	}
	name, _, _ = strings.Cut(name, "/")
	return module + "cmd/" + name
}
