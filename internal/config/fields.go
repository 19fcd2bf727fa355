package config

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// eachField visits the fields of a configuration, those of nested structures too,
// with their names as a file has them: maxPods, dns.upstreams. TypeMeta is not visited.
func eachField(structure reflect.Value, visit func(name string, field reflect.StructField, value reflect.Value)) {
	eachFieldBelow("", structure, visit)
}

func eachFieldBelow(prefix string, structure reflect.Value, visit func(string, reflect.StructField, reflect.Value)) {
	for i := range structure.NumField() {
		field, value := structure.Type().Field(i), structure.Field(i)
		switch name := yamlName(field); {
		case field.Anonymous:
		case name == "":
			eachFieldBelow(prefix, value, visit)
		case value.Kind() == reflect.Struct:
			eachFieldBelow(prefix+name+".", value, visit)
		default:
			visit(prefix+name, field, value)
		}
	}
}

// yamlName is how a file calls the field; empty when its own fields stand in its place.
func yamlName(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
	return name
}

// fieldNamed finds a field of a structure by the name a file has for it.
func fieldNamed(structure reflect.Value, name string) (reflect.Value, bool) {
	for i := range structure.NumField() {
		field, value := structure.Type().Field(i), structure.Field(i)
		switch own := yamlName(field); {
		case own == name:
			return value, true
		case own == "" && value.Kind() == reflect.Struct:
			if found, is := fieldNamed(value, name); is {
				return found, true
			}
		}
	}
	return reflect.Value{}, false
}

// Differences names the fields, as a file calls them, whose values differ between
// two configurations of one kind. An empty list or map is as good as none.
func Differences[C any](a, b *C) []string {
	others := map[string]reflect.Value{}
	eachField(reflect.ValueOf(b).Elem(), func(name string, _ reflect.StructField, value reflect.Value) { others[name] = value })
	var names []string
	eachField(reflect.ValueOf(a).Elem(), func(name string, _ reflect.StructField, value reflect.Value) {
		other := others[name]
		switch value.Kind() {
		case reflect.Slice, reflect.Map:
			if value.Len() == 0 && other.Len() == 0 {
				return
			}
		}
		if !reflect.DeepEqual(value.Interface(), other.Interface()) {
			names = append(names, name)
		}
	})
	return names
}

// Clone returns a copy of a configuration that shares nothing with it.
func Clone[C any](c *C) *C {
	data, err := yaml.Marshal(c)
	clone := new(C)
	if err == nil {
		err = yaml.Unmarshal(data, clone)
	}
	if err != nil {
		// What this package's structures hold can be written and read.
		panic(fmt.Sprintf("copy a configuration: %v", err))
	}
	return clone
}
