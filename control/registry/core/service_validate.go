package core

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// agentPort is the port of agents, which no load balanced service may take.
const agentPort = 10250

var (
	serviceTypes     = []corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort}
	serviceProtocols = []corev1.Protocol{corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP}
)

// validateService checks a service as upstream does, with its messages.
func validateService(s *corev1.Service) field.ErrorList {
	spec := field.NewPath("spec")
	var errs field.ErrorList
	headless := s.Spec.ClusterIP == corev1.ClusterIPNone
	if len(s.Spec.Ports) == 0 && !headless && s.Spec.Type != corev1.ServiceTypeExternalName {
		errs = append(errs, field.Required(spec.Child("ports"), ""))
	}
	switch s.Spec.Type {
	case corev1.ServiceTypeLoadBalancer:
		for i, port := range s.Spec.Ports {
			if port.Port == agentPort {
				errs = append(errs, field.Invalid(spec.Child("ports").Index(i), port.Port, fmt.Sprintf("may not expose port %v externally since it is used by kubelet", agentPort)))
			}
		}
		if headless {
			errs = append(errs, field.Invalid(spec.Child("clusterIPs").Index(0), s.Spec.ClusterIP, "may not be set to 'None' for LoadBalancer services"))
		}
	case corev1.ServiceTypeNodePort:
		if headless {
			errs = append(errs, field.Invalid(spec.Child("clusterIPs").Index(0), s.Spec.ClusterIP, "may not be set to 'None' for NodePort services"))
		}
	case corev1.ServiceTypeExternalName:
		if s.Spec.ClusterIP != "" || len(s.Spec.ClusterIPs) > 0 {
			errs = append(errs, field.Forbidden(spec.Child("clusterIPs"), "may not be set for ExternalName services"))
		}
		name := strings.TrimSuffix(s.Spec.ExternalName, ".")
		if name == "" {
			errs = append(errs, field.Required(spec.Child("externalName"), ""))
		} else {
			for _, message := range validation.IsDNS1123Subdomain(name) {
				errs = append(errs, field.Invalid(spec.Child("externalName"), s.Spec.ExternalName, message))
			}
		}
	case corev1.ServiceTypeClusterIP:
	default:
		errs = append(errs, field.NotSupported(spec.Child("type"), s.Spec.Type, serviceTypes))
	}
	errs = append(errs, validateServicePorts(s, spec)...)
	errs = append(errs, metav1validation.ValidateLabels(s.Spec.Selector, spec.Child("selector"))...)
	errs = append(errs, validateAffinity(s, spec)...)
	errs = append(errs, validateAddresses(s, spec)...)
	return append(errs, validateTraffic(s, spec)...)
}

func validateServicePorts(s *corev1.Service, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	names, numbers, nodePorts := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i := range s.Spec.Ports {
		port, path := &s.Spec.Ports[i], spec.Child("ports").Index(i)
		switch {
		case port.Name == "" && len(s.Spec.Ports) > 1:
			errs = append(errs, field.Required(path.Child("name"), ""))
		case port.Name != "":
			for _, message := range validation.IsDNS1123Label(port.Name) {
				errs = append(errs, field.Invalid(path.Child("name"), port.Name, message))
			}
			if names[port.Name] {
				errs = append(errs, field.Duplicate(path.Child("name"), port.Name))
			}
			names[port.Name] = true
		}
		for _, message := range validation.IsValidPortNum(int(port.Port)) {
			errs = append(errs, field.Invalid(path.Child("port"), port.Port, message))
		}
		switch {
		case port.Protocol == "":
			errs = append(errs, field.Required(path.Child("protocol"), ""))
		case !slices.Contains(serviceProtocols, port.Protocol):
			errs = append(errs, field.NotSupported(path.Child("protocol"), port.Protocol, serviceProtocols))
		}
		if port.TargetPort.Type == intstr.Int {
			for _, message := range validation.IsValidPortNum(port.TargetPort.IntValue()) {
				errs = append(errs, field.Invalid(path.Child("targetPort"), port.TargetPort.IntValue(), message))
			}
		} else {
			for _, message := range validation.IsValidPortName(port.TargetPort.StrVal) {
				errs = append(errs, field.Invalid(path.Child("targetPort"), port.TargetPort.StrVal, message))
			}
		}
		if port.AppProtocol != nil {
			for _, message := range validation.IsQualifiedName(*port.AppProtocol) {
				errs = append(errs, field.Invalid(path.Child("appProtocol"), *port.AppProtocol, message))
			}
		}
		key := fmt.Sprintf("%s/%d", port.Protocol, port.Port)
		if numbers[key] {
			errs = append(errs, field.Duplicate(path, corev1.ServicePort{Protocol: port.Protocol, Port: port.Port}))
		}
		numbers[key] = true
		if port.NodePort == 0 {
			continue
		}
		if s.Spec.Type == corev1.ServiceTypeClusterIP || s.Spec.Type == corev1.ServiceTypeExternalName {
			errs = append(errs, field.Forbidden(path.Child("nodePort"), fmt.Sprintf("may not be used when `type` is '%s'", s.Spec.Type)))
			continue
		}
		key = fmt.Sprintf("%s/%d", port.Protocol, port.NodePort)
		if nodePorts[key] {
			errs = append(errs, field.Duplicate(path.Child("nodePort"), port.NodePort))
		}
		nodePorts[key] = true
	}
	return errs
}

func validateAffinity(s *corev1.Service, spec *field.Path) field.ErrorList {
	const longest = 86400
	path := spec.Child("sessionAffinityConfig")
	switch s.Spec.SessionAffinity {
	case "":
		return field.ErrorList{field.Required(spec.Child("sessionAffinity"), "")}
	case corev1.ServiceAffinityNone:
		if s.Spec.SessionAffinityConfig != nil {
			return field.ErrorList{field.Forbidden(path, fmt.Sprintf("must not be set when session affinity is %s", corev1.ServiceAffinityNone))}
		}
	case corev1.ServiceAffinityClientIP:
		c := s.Spec.SessionAffinityConfig
		if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			return field.ErrorList{field.Required(path, fmt.Sprintf("when session affinity type is %s", corev1.ServiceAffinityClientIP))}
		}
		if seconds := *c.ClientIP.TimeoutSeconds; seconds <= 0 || seconds > longest {
			return field.ErrorList{field.Invalid(path.Child("clientIP", "timeoutSeconds"), seconds, fmt.Sprintf("must be greater than 0 and less than %d", longest))}
		}
	default:
		return field.ErrorList{field.NotSupported(spec.Child("sessionAffinity"), s.Spec.SessionAffinity, []corev1.ServiceAffinity{corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone})}
	}
	return nil
}

func validateAddresses(s *corev1.Service, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(s.Spec.ClusterIPs) > 0 && s.Spec.ClusterIPs[0] != s.Spec.ClusterIP {
		errs = append(errs, field.Invalid(spec.Child("clusterIPs"), s.Spec.ClusterIPs, "first value must match `clusterIP`"))
	}
	if len(s.Spec.ClusterIPs) > 2 {
		errs = append(errs, field.Invalid(spec.Child("clusterIPs"), s.Spec.ClusterIPs, "may only hold up to 2 values"))
	}
	for i, text := range s.Spec.ClusterIPs {
		if text == corev1.ClusterIPNone {
			if len(s.Spec.ClusterIPs) > 1 {
				errs = append(errs, field.Invalid(spec.Child("clusterIPs").Index(i), text, "'None' must be the first and only value"))
			}
			continue
		}
		if _, err := netip.ParseAddr(text); err != nil {
			errs = append(errs, field.Invalid(spec.Child("clusterIPs").Index(i), text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"))
		}
	}
	for i, family := range s.Spec.IPFamilies {
		if family != corev1.IPv4Protocol && family != corev1.IPv6Protocol {
			errs = append(errs, field.NotSupported(spec.Child("ipFamilies").Index(i), family, []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}))
		}
	}
	for i, text := range s.Spec.ExternalIPs {
		address, err := netip.ParseAddr(text)
		path := spec.Child("externalIPs").Index(i)
		switch {
		case err != nil:
			errs = append(errs, field.Invalid(path, text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"))
		case address.IsUnspecified():
			errs = append(errs, field.Invalid(path, text, "may not be unspecified (0.0.0.0 or ::)"))
		case address.IsLoopback():
			errs = append(errs, field.Invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
		case address.IsLinkLocalUnicast():
			errs = append(errs, field.Invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
		case address.IsLinkLocalMulticast():
			errs = append(errs, field.Invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"))
		}
	}
	for i, text := range s.Spec.LoadBalancerSourceRanges {
		path := spec.Child("loadBalancerSourceRanges")
		if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
			return append(errs, field.Forbidden(path, "may only be used when `type` is 'LoadBalancer'"))
		}
		if _, err := netip.ParsePrefix(strings.TrimSpace(text)); err != nil {
			errs = append(errs, field.Invalid(path.Index(i), text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"))
		}
	}
	return errs
}

func validateTraffic(s *corev1.Service, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	if policy := s.Spec.ExternalTrafficPolicy; !externallyReachable(s) {
		if policy != "" {
			errs = append(errs, field.Invalid(spec.Child("externalTrafficPolicy"), policy, "may only be set for externally-accessible services"))
		}
	} else {
		switch policy {
		case "":
			errs = append(errs, field.Required(spec.Child("externalTrafficPolicy"), ""))
		case corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal:
		default:
			errs = append(errs, field.NotSupported(spec.Child("externalTrafficPolicy"), policy, []corev1.ServiceExternalTrafficPolicy{corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal}))
		}
	}
	if !wantsHealthCheckPort(s) && s.Spec.HealthCheckNodePort != 0 {
		errs = append(errs, field.Invalid(spec.Child("healthCheckNodePort"), s.Spec.HealthCheckNodePort, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"))
	}
	if policy := s.Spec.InternalTrafficPolicy; policy != nil && *policy != corev1.ServiceInternalTrafficPolicyCluster && *policy != corev1.ServiceInternalTrafficPolicyLocal {
		errs = append(errs, field.NotSupported(spec.Child("internalTrafficPolicy"), *policy, []corev1.ServiceInternalTrafficPolicy{corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal}))
	}
	balanced := s.Spec.Type == corev1.ServiceTypeLoadBalancer
	if balanced && s.Spec.AllocateLoadBalancerNodePorts == nil {
		errs = append(errs, field.Required(spec.Child("allocateLoadBalancerNodePorts"), ""))
	}
	if !balanced && s.Spec.AllocateLoadBalancerNodePorts != nil {
		errs = append(errs, field.Forbidden(spec.Child("allocateLoadBalancerNodePorts"), "may only be used when `type` is 'LoadBalancer'"))
	}
	if !balanced && s.Spec.LoadBalancerClass != nil {
		errs = append(errs, field.Forbidden(spec.Child("loadBalancerClass"), "may only be used when `type` is 'LoadBalancer'"))
	}
	if distribution := s.Spec.TrafficDistribution; distribution != nil {
		known := []string{corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameNode, corev1.ServiceTrafficDistributionPreferSameZone}
		if !slices.Contains(known, *distribution) {
			errs = append(errs, field.NotSupported(spec.Child("trafficDistribution"), *distribution, known))
		}
	}
	return errs
}

// validateServiceUpdate: an address stays for as long as the service has one.
func validateServiceUpdate(s, old *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	spec := field.NewPath("spec")
	if old.Spec.Type != corev1.ServiceTypeExternalName && s.Spec.Type != corev1.ServiceTypeExternalName && old.Spec.ClusterIP != "" {
		now := ""
		if len(s.Spec.ClusterIPs) > 0 {
			now = s.Spec.ClusterIPs[0]
		}
		if now != old.Spec.ClusterIP {
			errs = append(errs, field.Invalid(spec.Child("clusterIPs").Index(0), s.Spec.ClusterIPs, "field is immutable"))
		}
	}
	if old.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.Type == corev1.ServiceTypeLoadBalancer && !ptr.Equal(old.Spec.LoadBalancerClass, s.Spec.LoadBalancerClass) {
		errs = append(errs, apivalidation.ValidateImmutableField(s.Spec.LoadBalancerClass, old.Spec.LoadBalancerClass, spec.Child("loadBalancerClass"))...)
	}
	return errs
}
