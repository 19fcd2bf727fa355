// Package config reads the configuration files of the daemons: versioned YAML
// in which an unknown or repeated field is an error that names its line.
//
// Each kind has a Default function with every default in one place, and a
// Validate method whose errors name the field. A daemon's configuration is, in
// rising order of weight: defaults, its file, the drop-ins beside that,
// environment variables, flags.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"

	"go.yaml.in/yaml/v3"

	"github.com/skiff-run/skiff/internal/durable"
)

// APIVersion is the version of the configuration files this release reads.
const APIVersion = "skiff.dev/v1"

// TypeMeta names the kind of a configuration file.
type TypeMeta struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
}

// Load reads the file at path into the configuration, which already holds the
// defaults: what the file does not mention keeps its value. Field names that
// are unknown, duplicated or of the wrong type are errors with file and line.
// Lists replace what was there, maps are merged key by key, and a key whose value
// is null is removed.
func Load(path, kind string, into any) error {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("read configuration: %w: this runs as user %d: chmod 644 %[3]s, or chgrp and chmod 640 when it holds a secret", err, os.Geteuid(), path)
	case err != nil:
		return fmt.Errorf("read configuration: %w", err)
	}
	var meta TypeMeta
	if err := yaml.Unmarshal(data, &meta); err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	switch {
	case meta.APIVersion == "":
		return fmt.Errorf("configuration %s: apiVersion is missing: write \"apiVersion: %s\"", path, APIVersion)
	case meta.APIVersion != APIVersion:
		return fmt.Errorf("configuration %s: apiVersion: %q is not known to this release, which reads %q", path, meta.APIVersion, APIVersion)
	case meta.Kind != kind:
		return fmt.Errorf("configuration %s: kind: %q, but a %q is needed here", path, meta.Kind, kind)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	var extra any
	if err := decoder.Decode(&extra); !errors.Is(err, io.EOF) {
		return fmt.Errorf("configuration %s: holds more than one document; keep one", path)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	if len(document.Content) > 0 {
		removeNulls(document.Content[0], reflect.ValueOf(into).Elem())
	}
	return nil
}

// removeNulls takes out of the maps in value the keys that the node gives as
// null: decoding leaves them there without a value.
func removeNulls(node *yaml.Node, value reflect.Value) {
	if node.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, content := node.Content[i].Value, node.Content[i+1]
		switch value.Kind() {
		case reflect.Map:
			if content.ShortTag() == "!!null" && !value.IsNil() {
				value.SetMapIndex(reflect.ValueOf(key).Convert(value.Type().Key()), reflect.Value{})
			}
		case reflect.Struct:
			if field, found := fieldNamed(value, key); found {
				removeNulls(content, field)
			}
		}
	}
}

// Write stores the configuration at path at once or not at all. A new file is
// readable by the owner of its folder only, one that was there stays whose it was.
func Write(path string, configuration any) error {
	data, err := yaml.Marshal(configuration)
	if err != nil {
		return fmt.Errorf("encode configuration %s: %w", path, err)
	}
	if err := durable.WriteFile(path, data); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}
