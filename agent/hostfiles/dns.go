package hostfiles

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// maxServers is what the C library reads; the other two are the kubelet's bounds.
	maxServers     = 3
	maxSearches    = 32
	maxSearchChars = 2048
	// maxDomain is the longest domain name.
	maxDomain = 253
)

// Resolver is what the node knows about name servers.
type Resolver struct {
	ClusterDNS    []string
	ClusterDomain string
	// Host is the node's own resolver configuration.
	Host *runtimeapi.DNSConfig
}

// ParseResolvConf reads a file in the format of resolv.conf(5).
func ParseResolvConf(r io.Reader) (*runtimeapi.DNSConfig, error) {
	c := &runtimeapi.DNSConfig{}
	scanner := bufio.NewScanner(r)
	for scanner.Scan() {
		line := scanner.Text()
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			c.Servers = append(c.Servers, fields[1])
		case "search":
			// A later search line replaces an earlier one.
			c.Searches = nil
			for _, s := range fields[1:] {
				if s != "." {
					s = strings.TrimSuffix(s, ".")
				}
				c.Searches = append(c.Searches, s)
			}
		case "options":
			c.Options = append(c.Options, fields[1:]...)
		}
	}
	return c, scanner.Err()
}

// Warning is what the user should know of a pod's resolver configuration: the
// reason and the message of an event.
type Warning struct{ Reason, Message string }

// PodDNS returns the resolver configuration for the pod's dnsPolicy and
// dnsConfig, with what was left out because no resolver reads it.
func (r *Resolver) PodDNS(pod *v1.Pod) (*runtimeapi.DNSConfig, []Warning) {
	var warnings []Warning
	config := &runtimeapi.DNSConfig{
		Servers: slices.Clone(r.Host.GetServers()), Searches: slices.Clone(r.Host.GetSearches()), Options: slices.Clone(r.Host.GetOptions()),
	}
	policy := pod.Spec.DNSPolicy
	// On the node's network, ClusterFirst means the node's resolver.
	cluster := policy == v1.DNSClusterFirstWithHostNet || ((policy == v1.DNSClusterFirst || policy == "") && !pod.Spec.HostNetwork)
	switch {
	case policy == v1.DNSNone:
		config = &runtimeapi.DNSConfig{}
	case cluster && len(r.ClusterDNS) > 0:
		config.Servers = slices.Clone(r.ClusterDNS)
		if r.ClusterDomain != "" {
			own := []string{pod.Namespace + ".svc." + r.ClusterDomain, "svc." + r.ClusterDomain, r.ClusterDomain}
			config.Searches = unique(append(own, config.Searches...))
		}
		config.Options = []string{"ndots:5"}
	case cluster:
		warnings = append(warnings, Warning{"MissingClusterDNS", fmt.Sprintf(
			"pod: %q. kubelet does not have ClusterDNS IP configured and cannot create Pod using %q policy. Falling back to %q policy.",
			fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID), v1.DNSClusterFirst, v1.DNSDefault)})
	}
	if extra := pod.Spec.DNSConfig; extra != nil {
		config.Servers = unique(append(config.Servers, extra.Nameservers...))
		config.Searches = unique(append(config.Searches, extra.Searches...))
		config.Options = mergeOptions(config.Options, extra.Options)
	}
	return config, append(warnings, bound(config)...)
}

// bound leaves out what resolvers do not read; some end the program instead.
func bound(c *runtimeapi.DNSConfig) []Warning {
	var warnings []Warning
	if len(c.Servers) > maxServers {
		c.Servers = c.Servers[:maxServers]
		warnings = append(warnings, Warning{"DNSConfigForming",
			"Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: " + strings.Join(c.Servers, " ")})
	}
	before := len(c.Searches)
	c.Searches = slices.DeleteFunc(c.Searches[:min(before, maxSearches)], func(s string) bool { return len(s) > maxDomain })
	for len(strings.Join(c.Searches, " ")) > maxSearchChars {
		c.Searches = c.Searches[:len(c.Searches)-1]
	}
	if len(c.Searches) < before {
		warnings = append(warnings, Warning{"DNSConfigForming",
			"Search Line limits were exceeded, some search paths have been omitted, the applied search line is: " + strings.Join(c.Searches, " ")})
	}
	return warnings
}

// mergeOptions lets the pod's options replace those of the same name.
func mergeOptions(base []string, extra []v1.PodDNSConfigOption) []string {
	name := func(option string) string { n, _, _ := strings.Cut(option, ":"); return n }
	for _, e := range extra {
		text := e.Name
		if e.Value != nil && *e.Value != "" {
			text += ":" + *e.Value
		}
		if i := slices.IndexFunc(base, func(o string) bool { return name(o) == e.Name }); i >= 0 {
			base[i] = text
			continue
		}
		base = append(base, text)
	}
	return base
}

func unique(list []string) []string {
	seen := make(map[string]bool, len(list))
	return slices.DeleteFunc(list, func(s string) bool {
		again := seen[s]
		seen[s] = true
		return again
	})
}
