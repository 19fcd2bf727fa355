package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-helpers/node/util/sysctl"
)

// path turns "dns.upstreams[0]" into a field path.
func path(name string) *field.Path {
	parts := strings.Split(name, ".")
	return field.NewPath(parts[0], parts[1:]...)
}

func requirePath(name, value string) field.ErrorList {
	switch {
	case value == "":
		return field.ErrorList{field.Required(path(name), "give an absolute path")}
	case !filepath.IsAbs(value):
		return field.ErrorList{field.Invalid(path(name), value, "must be an absolute path")}
	}
	return nil
}

func requireAddress(name, value string) field.ErrorList {
	if _, err := netip.ParseAddr(value); err != nil {
		return field.ErrorList{field.Invalid(path(name), value, "must be an IP address, for example 192.168.56.10")}
	}
	return nil
}

func requirePrefix(name, value string) (netip.Prefix, field.ErrorList) {
	prefix, err := netip.ParsePrefix(value)
	if err != nil {
		return prefix, field.ErrorList{field.Invalid(path(name), value, "must be a range such as 10.96.0.0/16")}
	}
	if prefix.Masked() != prefix {
		return prefix, field.ErrorList{field.Invalid(path(name), value, fmt.Sprintf("has bits set beyond its prefix; write %s", prefix.Masked()))}
	}
	return prefix, nil
}

func requirePort(name string, value int) field.ErrorList {
	if value < 1 || value > 65535 {
		return field.ErrorList{field.Invalid(path(name), value, "must be a port from 1 to 65535")}
	}
	return nil
}

func requireHostPort(name, value string) field.ErrorList {
	host, port, err := net.SplitHostPort(value)
	number, portErr := strconv.Atoi(port)
	if err != nil || portErr != nil || host == "" || number < 1 || number > 65535 {
		return field.ErrorList{field.Invalid(path(name), value, "must be host:port, for example 192.168.56.10:6443")}
	}
	return nil
}

func requirePortRange(name, value string) field.ErrorList {
	low, high, found := strings.Cut(value, "-")
	from, err := strconv.Atoi(low)
	to, err2 := strconv.Atoi(high)
	if !found || err != nil || err2 != nil || from < 1 || to > 65535 || from > to {
		return field.ErrorList{field.Invalid(path(name), value, "must be a range of ports such as 30000-32767")}
	}
	return nil
}

func requireDomain(name, value string) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range validation.IsDNS1123Subdomain(value) {
		errs = append(errs, field.Invalid(path(name), value, msg))
	}
	return errs
}

func requireOneOf(name, value string, allowed ...string) field.ErrorList {
	if slices.Contains(allowed, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(path(name), value, allowed)}
}

func requireLogLevel(value string) field.ErrorList {
	return requireOneOf("logLevel", value, "debug", "info", "warn", "error")
}

// sysctlPattern is a name whose parts are separated by dots or slashes; the last may end in *.
var sysctlPattern = regexp.MustCompile(`^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*([a-z0-9][-_a-z0-9]*)?[a-z0-9*]$`)

func requireSysctl(name, value string) field.ErrorList {
	if len(value) > 253 || !sysctlPattern.MatchString(value) {
		return field.ErrorList{field.Invalid(field.NewPath(name), value, "must be the name of a sysctl, or the beginning of names followed by *")}
	}
	if namespace, _, _ := sysctl.GetNamespace(value); namespace == sysctl.UnknownNamespace {
		return field.ErrorList{field.Invalid(field.NewPath(name), value, "is not known to be namespaced: a pod that set it would set it for the whole node")}
	}
	return nil
}
