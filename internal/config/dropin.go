package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// DropInDir is the folder of the drop-ins of the configuration file at path:
// /etc/skiff/agent.d for /etc/skiff/agent.yaml.
func DropInDir(path string) string {
	return strings.TrimSuffix(path, filepath.Ext(path)) + ".d"
}

// DropIns lists the drop-ins of the configuration file at path in the order they
// are merged, that of their names. Files with other endings than .yaml, such as
// editors' and package managers' copies, are none.
func DropIns(path string) ([]string, error) {
	dir := DropInDir(path)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the configuration's drop-ins: %w", err)
	}
	var files []string
	for _, entry := range entries {
		file := filepath.Join(dir, entry.Name())
		switch {
		case strings.HasPrefix(entry.Name(), "."):
		case filepath.Ext(file) == ".yml":
			return nil, fmt.Errorf("configuration %s: only *.yaml is read here: rename it, or move it away", file)
		case filepath.Ext(file) == ".yaml":
			files = append(files, file)
		}
	}
	slices.Sort(files)
	return files, nil
}

// LoadDropIns reads the drop-ins of the configuration file at path, which need
// not exist, into the configuration, one over the other, and returns their names.
// Each is a file as Load wants it, with the fields that differ only.
func LoadDropIns(path, kind string, into any) ([]string, error) {
	files, err := DropIns(path)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if err := Load(file, kind, into); err != nil {
			return nil, err
		}
	}
	return files, nil
}
