package config

import (
	"fmt"
	"reflect"
	"slices"
	"sync"
)

// Live is the configuration of a daemon that runs. It is read again on request:
// the fields that can change then do, the others wait for a restart. It is safe
// for concurrent use.
type Live[C any] struct {
	flags *Flags[C]
	// fields are those that can change, by their names in a file.
	fields []string

	mu sync.Mutex // guards what follows
	// running is what the daemon runs with, as it was configured.
	running *C
}

// Follow returns the configuration that Complete has read, of which the fields
// can change while the daemon runs.
func (f *Flags[C]) Follow(fields []string) *Live[C] {
	return &Live[C]{flags: f, fields: fields, running: Clone(f.configuration)}
}

// Reload reads everything anew and has apply make the daemon do what it says. It
// returns the names of the fields that were applied and of those that wait for a
// restart. When the configuration cannot be used, or apply returns an error, what
// runs stays what it was.
func (l *Live[C]) Reload(apply func(*C) error) (applied, waiting []string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fresh, err := l.flags.Read()
	if err != nil {
		return nil, nil, err
	}
	next := Clone(l.running)
	for _, name := range Differences(l.running, fresh) {
		if !slices.Contains(l.fields, name) {
			waiting = append(waiting, name)
			continue
		}
		applied = append(applied, name)
		eachField(reflect.ValueOf(fresh).Elem(), func(each string, _ reflect.StructField, value reflect.Value) {
			if each == name {
				setField(next, name, value)
			}
		})
	}
	if errs := l.flags.validate(next); len(errs) > 0 {
		return nil, nil, fmt.Errorf("the changes need a restart together: with those alone that a reload applies: %w", errs.ToAggregate())
	}
	if len(applied) == 0 {
		return nil, waiting, nil
	}
	if err := apply(next); err != nil {
		return nil, nil, err
	}
	l.running = next
	return applied, waiting, nil
}

// setField sets a field, nested ones by dots, to a value of its type.
func setField[C any](c *C, name string, value reflect.Value) {
	eachField(reflect.ValueOf(c).Elem(), func(each string, _ reflect.StructField, field reflect.Value) {
		if each == name {
			field.Set(value)
		}
	})
}

// FieldNames are the names of a configuration's fields in a file.
func FieldNames[C any](c *C) []string {
	var names []string
	eachField(reflect.ValueOf(c).Elem(), func(name string, _ reflect.StructField, _ reflect.Value) { names = append(names, name) })
	return names
}
