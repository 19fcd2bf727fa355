package config

import (
	"fmt"
	"reflect"
	"strings"
	"unicode"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Flags ties the fields of a configuration to command-line flags: dataDir
// becomes --data-dir, dns.address becomes --dns-address. Flags win over the
// file, the file over the defaults.
type Flags struct {
	kind          string
	configuration Validator
	file          string
	set           *pflag.FlagSet
	apply         map[string]func() error
}

// Validator is a configuration that can name its bad fields.
type Validator interface{ Validate() field.ErrorList }

// AddFlags registers --config and one flag for each field of the
// configuration, a pointer to a struct that already holds the defaults.
func AddFlags(set *pflag.FlagSet, kind string, configuration Validator) *Flags {
	f := &Flags{kind: kind, configuration: configuration, set: set, apply: map[string]func() error{}}
	set.StringVar(&f.file, "config", "", "configuration file of kind "+kind+"; flags win over it")
	f.add("", reflect.ValueOf(configuration).Elem())
	return f
}

func (f *Flags) add(prefix string, structure reflect.Value) {
	for i := range structure.NumField() {
		structField, value := structure.Type().Field(i), structure.Field(i)
		if structField.Anonymous {
			continue
		}
		if structField.Tag.Get("yaml") == ",inline" {
			f.add(prefix, value)
			continue
		}
		name := prefix + kebab(strings.Split(structField.Tag.Get("yaml"), ",")[0])
		help := structField.Tag.Get("help")
		// The flag gets a variable of its own, because the file is read after
		// the flags are parsed and must not overwrite them.
		switch v := value.Addr().Interface().(type) {
		case *string:
			flag := f.set.String(name, *v, help)
			f.apply[name] = func() error { *v = *flag; return nil }
		case *int:
			flag := f.set.Int(name, *v, help)
			f.apply[name] = func() error { *v = *flag; return nil }
		case *bool:
			flag := f.set.Bool(name, *v, help)
			f.apply[name] = func() error { *v = *flag; return nil }
		case *[]string:
			flag := f.set.StringSlice(name, *v, help)
			f.apply[name] = func() error { *v = *flag; return nil }
		case *map[string]string:
			flag := f.set.StringToString(name, *v, help)
			f.apply[name] = func() error { *v = *flag; return nil }
		default:
			// Lists and maps of structures are for the file alone.
			if value.Kind() == reflect.Struct {
				f.add(name+"-", value)
			}
		}
	}
}

// Complete reads the file, applies the flags that were given on top of it and
// validates the result. The error names every bad field.
func (f *Flags) Complete() error {
	if f.file != "" {
		if err := Load(f.file, f.kind, f.configuration); err != nil {
			return err
		}
	}
	for name, apply := range f.apply {
		if f.set.Changed(name) {
			if err := apply(); err != nil {
				return fmt.Errorf("flag --%s: %w", name, err)
			}
		}
	}
	if errs := f.configuration.Validate(); len(errs) > 0 {
		return fmt.Errorf("configuration: %w", errs.ToAggregate())
	}
	return nil
}

// kebab turns a camelCase field name into a flag name: nodeCIDRMaskSize
// becomes node-cidr-mask-size, clientCAFile client-ca-file.
func kebab(camel string) string {
	runes := []rune(camel)
	var out strings.Builder
	for i, r := range runes {
		if unicode.IsUpper(r) && i > 0 {
			startsWord := !unicode.IsUpper(runes[i-1]) || (i+1 < len(runes) && unicode.IsLower(runes[i+1]))
			if startsWord {
				out.WriteByte('-')
			}
		}
		out.WriteRune(unicode.ToLower(r))
	}
	return out.String()
}
