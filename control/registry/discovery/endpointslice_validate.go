package discovery

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/skiff-run/skiff/control/registry/address"
)

// The bounds of a slice.
const (
	maxEndpoints = 1000
	maxAddresses = 100
	maxPorts     = 20000
	maxTopology  = 16
	maxHints     = 8
)

func validateSlice(s *discoveryv1.EndpointSlice) field.ErrorList {
	return append(validateSliceHead(s), validateEndpoints(s.Endpoints, s.AddressType)...)
}

func validateSliceUpdate(s, old *discoveryv1.EndpointSlice) field.ErrorList {
	errs := validateSliceHead(s)
	// What an earlier version accepted may stay. Comparing is only worth its
	// cost when there is an error.
	if bad := validateEndpoints(s.Endpoints, s.AddressType); len(bad) > 0 && !apiequality.Semantic.DeepEqual(s.Endpoints, old.Endpoints) {
		errs = append(errs, bad...)
	}
	if s.AddressType != old.AddressType {
		errs = append(errs, field.Invalid(field.NewPath("addressType"), nil /* upstream shows none */, apivalidation.FieldImmutableErrorMsg))
	}
	return errs
}

// validateSliceHead checks everything but the endpoints.
func validateSliceHead(s *discoveryv1.EndpointSlice) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("addressType")
	switch s.AddressType {
	case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN:
	case "":
		errs = append(errs, field.Required(path, ""))
	default:
		errs = append(errs, field.NotSupported(path, s.AddressType, []discoveryv1.AddressType{
			discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6,
		}))
	}
	return append(errs, validatePorts(s.Ports, field.NewPath("ports"))...)
}

func validatePorts(ports []discoveryv1.EndpointPort, path *field.Path) field.ErrorList {
	if len(ports) > maxPorts {
		return field.ErrorList{field.TooMany(path, len(ports), maxPorts)}
	}
	var errs field.ErrorList
	names := sets.New[string]()
	for i, port := range ports {
		at := path.Index(i)
		var name string
		if port.Name != nil {
			name = *port.Name
		}
		if name != "" {
			errs = append(errs, invalid(at.Child("name"), name, validation.IsDNS1123Label(name))...)
		}
		if names.Has(name) {
			errs = append(errs, field.Duplicate(at.Child("name"), name))
		}
		names.Insert(name)
		switch {
		case port.Protocol == nil:
			errs = append(errs, field.Required(at.Child("protocol"), ""))
		case *port.Protocol != corev1.ProtocolTCP && *port.Protocol != corev1.ProtocolUDP && *port.Protocol != corev1.ProtocolSCTP:
			errs = append(errs, field.NotSupported(at.Child("protocol"), *port.Protocol, []corev1.Protocol{corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP}))
		}
		if port.AppProtocol != nil {
			errs = append(errs, invalid(at.Child("appProtocol"), *port.AppProtocol, validation.IsQualifiedName(*port.AppProtocol))...)
		}
	}
	return errs
}

func validateEndpoints(endpoints []discoveryv1.Endpoint, kind discoveryv1.AddressType) field.ErrorList {
	path := field.NewPath("endpoints")
	if len(endpoints) > maxEndpoints {
		return field.ErrorList{field.TooMany(path, len(endpoints), maxEndpoints)}
	}
	var errs field.ErrorList
	for i, endpoint := range endpoints {
		at := path.Index(i)
		errs = append(errs, validateAddresses(endpoint.Addresses, kind, at.Child("addresses"))...)
		if endpoint.NodeName != nil {
			errs = append(errs, invalid(at.Child("nodeName"), *endpoint.NodeName, apivalidation.NameIsDNSSubdomain(*endpoint.NodeName, false))...)
		}
		topology := at.Child("deprecatedTopology")
		if len(endpoint.DeprecatedTopology) > maxTopology {
			errs = append(errs, field.TooMany(topology, len(endpoint.DeprecatedTopology), maxTopology))
		}
		errs = append(errs, metav1validation.ValidateLabels(endpoint.DeprecatedTopology, topology)...)
		if endpoint.Hostname != nil {
			errs = append(errs, invalid(at.Child("hostname"), *endpoint.Hostname, validation.IsDNS1123Label(*endpoint.Hostname))...)
		}
		if endpoint.Hints != nil {
			errs = append(errs, validateHints(endpoint.Hints, at.Child("hints"))...)
		}
	}
	return errs
}

// validateAddresses checks the addresses of one endpoint.
func validateAddresses(addresses []string, kind discoveryv1.AddressType, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(addresses) == 0 {
		errs = append(errs, field.Required(path, ""))
	} else if len(addresses) > maxAddresses {
		errs = append(errs, field.TooMany(path, len(addresses), maxAddresses))
	}
	for i, ip := range addresses {
		at := path.Index(i)
		switch kind {
		case discoveryv1.AddressTypeFQDN:
			errs = append(errs, validation.IsFullyQualifiedDomainName(at, ip)...)
		case discoveryv1.AddressTypeIPv4:
			if bad := validation.IsValidIPForLegacyField(at, ip, true, nil); len(bad) > 0 {
				errs = append(errs, bad...)
				continue
			}
			if !netutils.IsIPv4String(ip) {
				errs = append(errs, field.Invalid(path, ip, "must be an IPv4 address"))
			}
			errs = append(errs, address.ValidateReachable(ip, at)...)
		case discoveryv1.AddressTypeIPv6:
			if bad := validation.IsValidIP(at, ip); len(bad) > 0 {
				errs = append(errs, bad...)
				continue
			}
			if !netutils.IsIPv6String(ip) {
				errs = append(errs, field.Invalid(path, ip, "must be an IPv6 address"))
			}
			errs = append(errs, address.ValidateReachable(ip, at)...)
		}
	}
	return errs
}

func validateHints(hints *discoveryv1.EndpointHints, path *field.Path) field.ErrorList {
	zones := make([]string, len(hints.ForZones))
	for i, zone := range hints.ForZones {
		zones[i] = zone.Name
	}
	nodes := make([]string, len(hints.ForNodes))
	for i, node := range hints.ForNodes {
		nodes[i] = node.Name
	}
	errs, tooMany := validateHintNames(zones, path.Child("forZones"), validation.IsValidLabelValue)
	if tooMany {
		return errs
	}
	more, _ := validateHintNames(nodes, path.Child("forNodes"), func(name string) []string {
		return apivalidation.NameIsDNSSubdomain(name, false)
	})
	return append(errs, more...)
}

func validateHintNames(names []string, path *field.Path, check func(string) []string) (errs field.ErrorList, tooMany bool) {
	if len(names) > maxHints {
		return field.ErrorList{field.TooMany(path, len(names), maxHints)}, true
	}
	seen := sets.New[string]()
	for i, name := range names {
		at := path.Index(i).Child("name")
		if seen.Has(name) {
			errs = append(errs, field.Duplicate(at, name))
		}
		seen.Insert(name)
		errs = append(errs, invalid(at, name, check(name))...)
	}
	return errs, false
}

func invalid(path *field.Path, value string, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, message := range messages {
		errs = append(errs, field.Invalid(path, value, message))
	}
	return errs
}
