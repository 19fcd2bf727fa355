package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// EnvironmentPrefix is what the names of the environment variables of a
// configuration's kind begin with: SKIFF_AGENT_ for AgentConfiguration.
func EnvironmentPrefix(kind string) string {
	return "SKIFF_" + strings.ToUpper(strings.TrimSuffix(kind, "Configuration")) + "_"
}

// variable is the environment variable that stands for a flag: SKIFF_AGENT_LOG_LEVEL
// for --log-level.
func variable(kind, flag string) string {
	return EnvironmentPrefix(kind) + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// ApplyEnvironment sets the fields of a configuration that environ, a list as of
// os.Environ, has variables for. An empty variable counts as none. It returns the
// variables with the kind's prefix that stand for no field.
func ApplyEnvironment[C any, P validated[C]](kind string, configuration P, environ []string) (unknown []string, err error) {
	set := pflag.NewFlagSet(kind, pflag.ContinueOnError)
	flags := AddFlags(set, kind, configuration)
	known := map[string]string{}
	set.VisitAll(func(flag *pflag.Flag) { known[variable(kind, flag.Name)] = flag.Name })
	for _, entry := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, EnvironmentPrefix(kind)) || value == "" {
			continue
		}
		flag, is := known[name]
		if !is {
			unknown = append(unknown, name)
			continue
		}
		if err := set.Set(flag, value); err != nil {
			return nil, fmt.Errorf("environment variable %s: %w", name, err)
		}
	}
	return unknown, flags.override(configuration)
}

// WithoutEnvironment is environ without the variables that configure the daemons.
func WithoutEnvironment(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(entry string) bool {
		for _, kind := range []string{ControlKind, AgentKind, ProxyKind} {
			if strings.HasPrefix(entry, EnvironmentPrefix(kind)) {
				return true
			}
		}
		return false
	})
}
