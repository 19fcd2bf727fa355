package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What the resolver of a Linux C library can use.
const (
	maxNameservers    = 3
	maxSearchDomains  = 32
	maxSearchLength   = 2048
	maxHostnameLength = 64
)

func (v *validator) dnsConfig(path *field.Path) {
	config := v.spec.DNSConfig
	if v.spec.DNSPolicy == corev1.DNSNone {
		if config == nil {
			v.required(path, "must provide `dnsConfig` when `dnsPolicy` is None")
			return
		}
		if len(config.Nameservers) == 0 {
			v.required(path.Child("nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None")
			return
		}
	}
	if config == nil {
		return
	}
	servers, searches := path.Child("nameservers"), path.Child("searches")
	if len(config.Nameservers) > maxNameservers {
		v.invalid(servers, config.Nameservers, fmt.Sprintf("must not have more than %d nameservers", maxNameservers))
	}
	for i, server := range config.Nameservers {
		v.add(validation.IsValidIPForLegacyField(servers.Index(i), server, strictAddresses, nil)...)
	}
	if len(config.Searches) > maxSearchDomains {
		v.invalid(searches, config.Searches, fmt.Sprintf("must not have more than %d search paths", maxSearchDomains))
	}
	if len(strings.Join(config.Searches, " ")) > maxSearchLength {
		v.invalid(searches, config.Searches, fmt.Sprintf("must not have more than %d characters (including spaces) in the search list", maxSearchLength))
	}
	for i, domain := range config.Searches {
		if domain != "." {
			domain = strings.TrimSuffix(domain, ".")
			v.invalidEach(searches.Index(i), domain, validation.IsDNS1123SubdomainWithUnderscore(domain))
		}
	}
	for i, option := range config.Options {
		if option.Name == "" {
			v.required(path.Child("options").Index(i), "must not be empty")
		}
	}
}

func (v *validator) hostnameOverride(path *field.Path) {
	name := v.spec.HostnameOverride
	if name == nil {
		return
	}
	if isTrue(v.spec.SetHostnameAsFQDN) {
		v.forbidden(path, "may not be specified when setHostnameAsFQDN is true")
	}
	if v.spec.HostNetwork {
		v.forbidden(path, "may not be specified when hostNetwork is true")
	}
	if len(*name) > maxHostnameLength {
		v.tooLong(path, maxHostnameLength)
	}
	v.dnsSubdomain(*name, path)
}

// hostAliases checks the lines to be added to /etc/hosts.
func (v *validator) hostAliases(path *field.Path) {
	for i, alias := range v.spec.HostAliases {
		v.add(validation.IsValidIPForLegacyField(path.Index(i).Child("ip"), alias.IP, strictAddresses, nil)...)
		for j, name := range alias.Hostnames {
			v.dnsSubdomain(name, path.Index(i).Child("hostnames").Index(j))
		}
	}
}
