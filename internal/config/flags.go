package config

import (
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"unicode"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Flags ties the fields of a configuration to command-line flags: dataDir
// becomes --data-dir, dns.address becomes --dns-address. Flags win over
// environment variables, those over drop-ins, drop-ins over the file, the file
// over the defaults.
type Flags[C any] struct {
	kind          string
	configuration *C
	defaults      *C
	validate      func(*C) field.ErrorList
	applyEnv      func(*C) ([]string, error)
	file          string
	set           *pflag.FlagSet

	// more are files that are merged over the drop-ins.
	more []string
	// files and unknown variables were met when the configuration was read last.
	files, unknown []string
}

// Validator is a configuration that can name its bad fields.
type Validator interface{ Validate() field.ErrorList }

// validated is a pointer to a C that can name its bad fields.
type validated[C any] interface {
	*C
	Validator
}

// AddFlags registers --config and one flag for each field of the
// configuration, a pointer to a struct that already holds the defaults.
func AddFlags[C any, P validated[C]](set *pflag.FlagSet, kind string, configuration P) *Flags[C] {
	f := &Flags[C]{
		kind: kind, configuration: (*C)(configuration), defaults: Clone((*C)(configuration)), set: set,
		validate: func(c *C) field.ErrorList { return P(c).Validate() },
		applyEnv: func(c *C) ([]string, error) { return ApplyEnvironment(kind, P(c), os.Environ()) },
	}
	daemon := strings.ToLower(strings.TrimSuffix(kind, "Configuration"))
	set.StringVar(&f.file, "config", "", fmt.Sprintf("configuration file of kind %s; *.yaml in the folder %s.d beside it are merged over it", kind, daemon))
	eachField(reflect.ValueOf(configuration).Elem(), func(name string, field reflect.StructField, value reflect.Value) {
		name, help := flagName(name), field.Tag.Get("help")
		// The flag gets a variable of its own, because the file is read after
		// the flags are parsed and must not overwrite them.
		switch v := value.Interface().(type) {
		case string:
			set.String(name, v, help)
		case int:
			set.Int(name, v, help)
		case bool:
			set.Bool(name, v, help)
		case []string:
			set.StringSlice(name, v, help)
		case map[string]string:
			set.StringToString(name, v, help)
		default:
			// Lists and maps of structures are for the file alone.
		}
	})
	return f
}

// override sets the fields whose flags were given.
func (f *Flags[C]) override(configuration *C) error {
	var failure error
	eachField(reflect.ValueOf(configuration).Elem(), func(name string, _ reflect.StructField, value reflect.Value) {
		name = flagName(name)
		if !f.set.Changed(name) {
			return
		}
		var err error
		switch v := value.Addr().Interface().(type) {
		case *string:
			*v, err = f.set.GetString(name)
		case *int:
			*v, err = f.set.GetInt(name)
		case *bool:
			*v, err = f.set.GetBool(name)
		case *[]string:
			*v, err = f.set.GetStringSlice(name)
		case *map[string]string:
			*v, err = f.set.GetStringToString(name)
		}
		if err != nil && failure == nil {
			failure = fmt.Errorf("flag --%s: %w", name, err)
		}
	})
	return failure
}

// Complete reads everything that configures the daemon into the configuration
// and validates the result. The error names every bad field.
func (f *Flags[C]) Complete() error {
	c, err := f.Read()
	if err == nil {
		*f.configuration = *c
	}
	return err
}

// Read does as Complete but returns a configuration of its own, also later, when
// the files may have changed: the one given to AddFlags stays as it is. Flags and
// environment stay what they were at the start of the process.
func (f *Flags[C]) Read() (*C, error) {
	c := Clone(f.defaults)
	path, files := f.Path(), []string(nil)
	if path != "" {
		if err := Load(path, f.kind, c); err != nil {
			return nil, err
		}
		dropIns, err := LoadDropIns(path, f.kind, c)
		if err != nil {
			return nil, err
		}
		files = append([]string{path}, dropIns...)
	}
	for _, file := range f.more {
		if err := Load(file, f.kind, c); err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	unknown, err := f.applyEnv(c)
	if err != nil {
		return nil, err
	}
	if err := f.override(c); err != nil {
		return nil, err
	}
	if errs := f.validate(c); len(errs) > 0 {
		return nil, fmt.Errorf("configuration: %w", errs.ToAggregate())
	}
	f.files, f.unknown = files, unknown
	return c, nil
}

// Path is the configuration file that the flag or the environment names; empty for none.
func (f *Flags[C]) Path() string {
	if f.file != "" {
		return f.file
	}
	return os.Getenv(variable(f.kind, "config"))
}

// Report logs which files were read last, and warns of environment variables that
// look as if they configured this daemon, but stand for no flag of it: a start
// must not fail for what another release knows.
func (f *Flags[C]) Report(logger *slog.Logger) {
	if len(f.files) > 0 {
		logger.Info("configuration read", "files", f.files)
	}
	for _, name := range f.unknown {
		logger.Warn("an environment variable is ignored: no flag has its name, see --help", "variable", name)
	}
}

// Help is what --help says about where settings come from.
func Help(kind string) string {
	daemon := strings.ToLower(strings.TrimSuffix(kind, "Configuration"))
	return fmt.Sprintf(`Each flag is also a field of the configuration file (--log-level: logLevel), of drop-ins beside
it (%[1]s.d/*.yaml) and a variable (%[2]sLOG_LEVEL). Flags win, then variables, drop-ins, file.`, daemon, EnvironmentPrefix(kind))
}

// flagName turns a field's name into that of its flag.
func flagName(name string) string {
	parts := strings.Split(name, ".")
	for i := range parts {
		parts[i] = kebab(parts[i])
	}
	return strings.Join(parts, "-")
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
