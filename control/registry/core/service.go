package core

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry"
)

// serviceKind serves Services; addresses and node ports are given out by
// serviceNumbers.
func serviceKind(numbers *serviceNumbers) registry.Kind[*corev1.Service] {
	return registry.Kind[*corev1.Service]{
		Version: corev1.SchemeGroupVersion, Plural: "services", Singular: "service", ShortNames: []string{"svc"}, Categories: []string{"all"},
		New:              func() *corev1.Service { return &corev1.Service{} },
		NewList:          func() runtime.Object { return &corev1.ServiceList{} },
		Default:          defaultService,
		Spec:             func(s *corev1.Service) any { return &s.Spec },
		Status:           func(s *corev1.Service) any { return &s.Status },
		ValidateName:     apivalidation.NameIsDNS1035Label,
		PrepareForCreate: func(_ context.Context, s *corev1.Service) { dropUnusedServiceFields(s, nil) },
		PrepareForUpdate: func(_ context.Context, s, old *corev1.Service) {
			keepServiceFields(s, old)
			dropUnusedServiceFields(s, old)
		},
		Validate:       func(_ context.Context, s *corev1.Service) field.ErrorList { return validateService(s) },
		ValidateUpdate: func(_ context.Context, s, old *corev1.Service) field.ErrorList { return validateServiceUpdate(s, old) },
		BeginCreate:    numbers.beginCreate,
		BeginUpdate:    numbers.beginUpdate,
		AfterDelete:    numbers.afterDelete,
		Fields: func(s *corev1.Service) fields.Set {
			return fields.Set{"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
		},
		Columns: serviceColumns(),
		Row:     serviceRow,
	}
}

// defaultService completes a service as the API says.
func defaultService(s *corev1.Service) {
	if s.Spec.SessionAffinity == "" {
		s.Spec.SessionAffinity = corev1.ServiceAffinityNone
	}
	if s.Spec.SessionAffinity == corev1.ServiceAffinityNone {
		s.Spec.SessionAffinityConfig = nil
	}
	if s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		if c := s.Spec.SessionAffinityConfig; c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr.To(corev1.DefaultClientIPServiceAffinitySeconds)}}
		}
	}
	if s.Spec.Type == "" {
		s.Spec.Type = corev1.ServiceTypeClusterIP
	}
	for i := range s.Spec.Ports {
		port := &s.Spec.Ports[i]
		if port.Protocol == "" {
			port.Protocol = corev1.ProtocolTCP
		}
		if port.TargetPort == intstr.FromInt32(0) || port.TargetPort == intstr.FromString("") {
			port.TargetPort = intstr.FromInt32(port.Port)
		}
	}
	external := s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer
	if s.Spec.ExternalTrafficPolicy == "" && (external || s.Spec.Type == corev1.ServiceTypeClusterIP && len(s.Spec.ExternalIPs) > 0) {
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	if s.Spec.InternalTrafficPolicy == nil && (external || s.Spec.Type == corev1.ServiceTypeClusterIP) {
		s.Spec.InternalTrafficPolicy = ptr.To(corev1.ServiceInternalTrafficPolicyCluster)
	}
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		if s.Spec.AllocateLoadBalancerNodePorts == nil {
			s.Spec.AllocateLoadBalancerNodePorts = ptr.To(true)
		}
		for i := range s.Status.LoadBalancer.Ingress {
			if ingress := &s.Status.LoadBalancer.Ingress[i]; ingress.IP != "" && ingress.IPMode == nil {
				ingress.IPMode = ptr.To(corev1.LoadBalancerIPModeVIP)
			}
		}
	}
	// clusterIP and clusterIPs are two ways to say one thing.
	if s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) == 0 {
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
	if s.Spec.ClusterIP == "" && len(s.Spec.ClusterIPs) > 0 {
		s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	}
}

// dropUnusedServiceFields clears what another type of service needed, when the
// type changes and the client left the field as it was.
func dropUnusedServiceFields(s, old *corev1.Service) {
	if s.Spec.Type != corev1.ServiceTypeExternalName {
		if old != nil && s.Spec.ExternalName == old.Spec.ExternalName {
			s.Spec.ExternalName = ""
		}
	} else {
		same := old != nil && s.Spec.ClusterIP == old.Spec.ClusterIP
		if same {
			s.Spec.ClusterIP, s.Spec.ClusterIPs = "", nil
		}
		s.Spec.IPFamilies, s.Spec.IPFamilyPolicy, s.Spec.InternalTrafficPolicy = nil, nil, nil
	}
	if !externallyReachable(s) {
		if s.Spec.Type != corev1.ServiceTypeNodePort && s.Spec.Type != corev1.ServiceTypeLoadBalancer {
			s.Spec.ExternalTrafficPolicy = ""
		}
	}
	if !wantsNodePorts(s) && old != nil && wantsNodePorts(old) {
		for i := range s.Spec.Ports {
			s.Spec.Ports[i].NodePort = 0
		}
	}
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		s.Spec.AllocateLoadBalancerNodePorts = nil
		if old != nil && ptr.Equal(s.Spec.LoadBalancerClass, old.Spec.LoadBalancerClass) {
			s.Spec.LoadBalancerClass = nil
		}
		s.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	}
	if !wantsHealthCheckPort(s) && old != nil && s.Spec.HealthCheckNodePort == old.Spec.HealthCheckNodePort {
		s.Spec.HealthCheckNodePort = 0
	}
}

// keepServiceFields lets a client that read the service long ago, or does not
// know a field, keep what was given out.
func keepServiceFields(s, old *corev1.Service) {
	if s.Spec.Type == corev1.ServiceTypeExternalName || old.Spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	if s.Spec.ClusterIP == "" && len(s.Spec.ClusterIPs) == 0 {
		s.Spec.ClusterIP, s.Spec.ClusterIPs = old.Spec.ClusterIP, slices.Clone(old.Spec.ClusterIPs)
	}
	if len(s.Spec.IPFamilies) == 0 {
		s.Spec.IPFamilies = slices.Clone(old.Spec.IPFamilies)
	}
	if s.Spec.IPFamilyPolicy == nil {
		s.Spec.IPFamilyPolicy = old.Spec.IPFamilyPolicy
	}
	if wantsNodePorts(s) && wantsNodePorts(old) {
		given := map[string]int32{}
		used := map[int32]bool{}
		for _, port := range old.Spec.Ports {
			given[fmt.Sprintf("%s/%d", port.Protocol, port.Port)] = port.NodePort
		}
		for _, port := range s.Spec.Ports {
			used[port.NodePort] = true
		}
		for i := range s.Spec.Ports {
			port := &s.Spec.Ports[i]
			if before := given[fmt.Sprintf("%s/%d", port.Protocol, port.Port)]; port.NodePort == 0 && before != 0 && !used[before] {
				port.NodePort = before
				used[before] = true
			}
		}
	}
	if wantsHealthCheckPort(s) && wantsHealthCheckPort(old) && s.Spec.HealthCheckNodePort == 0 {
		s.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
	}
}

func externallyReachable(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer ||
		s.Spec.Type == corev1.ServiceTypeClusterIP && len(s.Spec.ExternalIPs) > 0
}

func wantsNodePorts(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort ||
		s.Spec.Type == corev1.ServiceTypeLoadBalancer && ptr.Deref(s.Spec.AllocateLoadBalancerNodePorts, true)
}

func wantsHealthCheckPort(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

func wantsClusterIP(s *corev1.Service) bool {
	return s.Spec.Type != corev1.ServiceTypeExternalName && s.Spec.ClusterIP != corev1.ClusterIPNone
}

func serviceColumns() []metav1.TableColumnDefinition {
	doc := corev1.ServiceSpec{}.SwaggerDoc()
	return []metav1.TableColumnDefinition{
		registry.NameColumn(),
		registry.Column("Type", "string", doc["type"]),
		registry.Column("Cluster-IP", "string", doc["clusterIP"]),
		registry.Column("External-IP", "string", doc["externalIPs"]),
		registry.Column("Port(s)", "string", doc["ports"]),
		registry.AgeColumn(),
		registry.Wide(registry.Column("Selector", "string", doc["selector"])),
	}
}

func serviceRow(s *corev1.Service) []any {
	clusterIP := "<none>"
	if len(s.Spec.ClusterIPs) > 0 {
		clusterIP = s.Spec.ClusterIPs[0]
	}
	return []any{s.Name, string(s.Spec.Type), clusterIP, externalAddress(s), portsText(s.Spec.Ports), registry.Age(s.CreationTimestamp), selectorText(s.Spec.Selector)}
}

func selectorText(selector map[string]string) string {
	if len(selector) == 0 {
		return "<none>"
	}
	return labels.FormatLabels(selector)
}

func externalAddress(s *corev1.Service) string {
	switch s.Spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
		if len(s.Spec.ExternalIPs) > 0 {
			return strings.Join(s.Spec.ExternalIPs, ",")
		}
		return "<none>"
	case corev1.ServiceTypeLoadBalancer:
		var all []string
		for _, ingress := range s.Status.LoadBalancer.Ingress {
			if ingress.IP != "" {
				all = append(all, ingress.IP)
			} else if ingress.Hostname != "" {
				all = append(all, ingress.Hostname)
			}
		}
		all = append(all, s.Spec.ExternalIPs...)
		if len(all) > 0 {
			return strings.Join(all, ",")
		}
		return "<pending>"
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	}
	return "<unknown>"
}

func portsText(ports []corev1.ServicePort) string {
	if len(ports) == 0 {
		return "<none>"
	}
	pieces := make([]string, len(ports))
	for i, port := range ports {
		pieces[i] = fmt.Sprintf("%d/%s", port.Port, port.Protocol)
		if port.NodePort > 0 {
			pieces[i] = fmt.Sprintf("%d:%d/%s", port.Port, port.NodePort, port.Protocol)
		}
	}
	return strings.Join(pieces, ",")
}

// addServices comes after endpoints and pods, which its proxy reads.
func addServices(deps *registry.Dependencies, storages registry.Storages) error {
	numbers, err := newServiceNumbers(deps)
	if err != nil {
		return err
	}
	store, own, err := registry.Build(deps, serviceKind(numbers))
	if err != nil {
		return err
	}
	numbers.services = store
	deps.Background = append(deps.Background, numbers.repair)
	storages.Add(own)
	storages["services/proxy"] = serviceProxy(&serviceBackends{
		services:  store,
		endpoints: storages["endpoints"].(*registry.Store[*corev1.Endpoints]),
		pods:      storages["pods"].(*registry.Store[*corev1.Pod]),
	}, proxyTransport())
	return nil
}

// familyOf is the address family of the cluster's services.
func familyOf(prefix netip.Prefix) corev1.IPFamily {
	if prefix.Addr().Is6() {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}
