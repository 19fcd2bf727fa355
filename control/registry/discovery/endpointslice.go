package discovery

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry"
)

// endpointSliceKind serves EndpointSlices.
func endpointSliceKind() registry.Kind[*discoveryv1.EndpointSlice] {
	return registry.Kind[*discoveryv1.EndpointSlice]{
		Version: discoveryv1.SchemeGroupVersion, Plural: "endpointslices", Singular: "endpointslice",
		New:          func() *discoveryv1.EndpointSlice { return &discoveryv1.EndpointSlice{} },
		NewList:      func() runtime.Object { return &discoveryv1.EndpointSliceList{} },
		Default:      setDefaults,
		ValidateName: apivalidation.NameIsDNSSubdomain,
		PrepareForCreate: func(_ context.Context, s *discoveryv1.EndpointSlice) {
			s.Generation = 1
			dropTopology(s)
		},
		PrepareForUpdate: func(_ context.Context, s, old *discoveryv1.EndpointSlice) {
			countGeneration(s, old)
			dropTopology(s)
		},
		Validate: func(_ context.Context, s *discoveryv1.EndpointSlice) field.ErrorList { return validateSlice(s) },
		// Unchanged endpoints are not looked at again: there can be a thousand.
		ValidateUpdateOnly: true,
		ValidateUpdate: func(_ context.Context, s, old *discoveryv1.EndpointSlice) field.ErrorList {
			return validateSliceUpdate(s, old)
		},
		Warnings: func(_ context.Context, s, old *discoveryv1.EndpointSlice) []string { return warnings(s, old) },
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(),
			registry.Column("AddressType", "string", discoveryv1.EndpointSlice{}.SwaggerDoc()["addressType"]),
			registry.Column("Ports", "string", discoveryv1.EndpointSlice{}.SwaggerDoc()["ports"]),
			registry.Column("Endpoints", "string", discoveryv1.EndpointSlice{}.SwaggerDoc()["endpoints"]),
			registry.AgeColumn(),
		},
		Row: func(s *discoveryv1.EndpointSlice) []any {
			return []any{s.Name, string(s.AddressType), describePorts(s.Ports), describeEndpoints(s.Endpoints), registry.Age(s.CreationTimestamp)}
		},
	}
}

func setDefaults(s *discoveryv1.EndpointSlice) {
	for i := range s.Ports {
		port := &s.Ports[i]
		if port.Name == nil {
			port.Name = ptr.To("")
		}
		if port.Protocol == nil {
			port.Protocol = ptr.To(corev1.ProtocolTCP)
		}
	}
}

// dropTopology clears what v1 has only for reading what v1beta1 has written.
func dropTopology(s *discoveryv1.EndpointSlice) {
	for i := range s.Endpoints {
		s.Endpoints[i].DeprecatedTopology = nil
	}
}

// countGeneration counts changes of the contents and of the labels, which say
// whose endpoints these are.
func countGeneration(s, old *discoveryv1.EndpointSlice) {
	s.Generation = old.Generation
	same := s.AddressType == old.AddressType &&
		apiequality.Semantic.DeepEqual(s.Labels, old.Labels) &&
		apiequality.Semantic.DeepEqual(s.Ports, old.Ports) &&
		apiequality.Semantic.DeepEqual(s.Endpoints, old.Endpoints)
	if !same {
		s.Generation++
	}
}

// writers are the controllers whose addresses are known to be well-formed.
var writers = map[string]bool{
	"endpointslice-controller.k8s.io":          true,
	"endpointslicemirroring-controller.k8s.io": true,
}

func warnings(s, old *discoveryv1.EndpointSlice) []string {
	var out []string
	if old == nil && s.AddressType == discoveryv1.AddressTypeFQDN {
		out = append(out, "spec.addressType: FQDN endpoints are deprecated")
	}
	if writers[s.Labels[discoveryv1.LabelManagedBy]] {
		return out
	}
	for i, endpoint := range s.Endpoints {
		for j, address := range endpoint.Addresses {
			out = append(out, validation.GetWarningsForIP(field.NewPath("endpoints").Index(i).Child("addresses").Index(j), address)...)
		}
	}
	return out
}

// shown is how many of a list's values fit into a column.
const shown = 3

func describePorts(ports []discoveryv1.EndpointPort) string {
	values := make([]string, 0, len(ports))
	for _, port := range ports {
		switch {
		case port.Port != nil:
			values = append(values, strconv.Itoa(int(*port.Port)))
		case port.Name != nil:
			values = append(values, *port.Name)
		default:
			values = append(values, "*")
		}
	}
	return abbreviate(values)
}

func describeEndpoints(endpoints []discoveryv1.Endpoint) string {
	var values []string
	for _, endpoint := range endpoints {
		values = append(values, endpoint.Addresses...)
	}
	return abbreviate(values)
}

func abbreviate(values []string) string {
	if len(values) > shown {
		return fmt.Sprintf("%s + %d more...", strings.Join(values[:shown], ","), len(values)-shown)
	}
	if all := strings.Join(values, ","); all != "" {
		return all
	}
	return "<unset>"
}
