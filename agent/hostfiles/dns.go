package hostfiles

import (
	"bufio"
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

// PodDNS returns the resolver configuration for the pod's dnsPolicy and
// dnsConfig. truncated: entries beyond what a resolver reads were left out.
func (r *Resolver) PodDNS(pod *v1.Pod) (config *runtimeapi.DNSConfig, truncated bool) {
	config = &runtimeapi.DNSConfig{
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
	}
	if extra := pod.Spec.DNSConfig; extra != nil {
		config.Servers = unique(append(config.Servers, extra.Nameservers...))
		config.Searches = unique(append(config.Searches, extra.Searches...))
		config.Options = mergeOptions(config.Options, extra.Options)
	}
	return config, bound(config)
}

func bound(c *runtimeapi.DNSConfig) (truncated bool) {
	if len(c.Servers) > maxServers {
		c.Servers, truncated = c.Servers[:maxServers], true
	}
	if len(c.Searches) > maxSearches {
		c.Searches, truncated = c.Searches[:maxSearches], true
	}
	for len(strings.Join(c.Searches, " ")) > maxSearchChars {
		c.Searches, truncated = c.Searches[:len(c.Searches)-1], true
	}
	return truncated
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
