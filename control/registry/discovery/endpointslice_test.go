package discovery

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

func messages(errs field.ErrorList) []string {
	var out []string
	for _, err := range errs {
		out = append(out, err.Error())
	}
	return out
}

func slice(change func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: "web-1", Namespace: "default"}, AddressType: discoveryv1.AddressTypeIPv4,
		Ports:     []discoveryv1.EndpointPort{{Port: ptr.To[int32](80)}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}},
	}
	change(s)
	setDefaults(s)
	return s
}

func TestValidationOfEndpointSlices(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*discoveryv1.EndpointSlice)
		want   []string
	}{
		"a good one": {change: func(*discoveryv1.EndpointSlice) {}},
		"no type": {func(s *discoveryv1.EndpointSlice) { s.AddressType = "" }, []string{
			"addressType: Required value",
		}},
		"an unknown type": {func(s *discoveryv1.EndpointSlice) { s.AddressType = "MAC" }, []string{
			`addressType: Unsupported value: "MAC": supported values: "FQDN", "IPv4", "IPv6"`,
		}},
		"two ports without a name": {func(s *discoveryv1.EndpointSlice) { s.Ports = append(s.Ports, discoveryv1.EndpointPort{}) }, []string{
			`ports[1].name: Duplicate value: ""`,
		}},
		"a protocol that is none": {func(s *discoveryv1.EndpointSlice) { s.Ports[0].Protocol = ptr.To(corev1.Protocol("ICMP")) }, []string{
			`ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"`,
		}},
		"no address": {func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Addresses = nil }, []string{
			"endpoints[0].addresses: Required value",
		}},
		"addresses that mean something else on every node": {func(s *discoveryv1.EndpointSlice) {
			s.Endpoints[0].Addresses = []string{"127.0.0.1", "169.254.169.254", "0.0.0.0"}
		}, []string{
			`endpoints[0].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)`,
			`endpoints[0].addresses[1]: Invalid value: "169.254.169.254": may not be in the link-local range (169.254.0.0/16, fe80::/10)`,
			`endpoints[0].addresses[2]: Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0)`,
		}},
		"an address of the other family": {func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Addresses = []string{"fd00::1"} }, []string{
			`endpoints[0].addresses: Invalid value: "fd00::1": must be an IPv4 address`,
		}},
		"one zone hinted twice": {func(s *discoveryv1.EndpointSlice) {
			s.Endpoints[0].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "a"}, {Name: "a"}}}
		}, []string{`endpoints[0].hints.forZones[1].name: Duplicate value: "a"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, messages(validateSlice(slice(tc.change)))); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUpdatesOfEndpointSlices(t *testing.T) {
	t.Parallel()
	old := slice(func(s *discoveryv1.EndpointSlice) {
		s.Generation, s.Endpoints[0].Addresses = 3, []string{"127.0.0.1"}
	})
	kind := endpointSliceKind()
	s := old.DeepCopy()
	s.Annotations = map[string]string{"a": "b"}
	kind.PrepareForUpdate(t.Context(), s, old)
	if s.Generation != 3 {
		t.Errorf("an annotation makes generation %d, want 3", s.Generation)
	}
	if errs := kind.ValidateUpdate(t.Context(), s, old); len(errs) > 0 {
		t.Errorf("stored endpoints are refused: %v", errs.ToAggregate())
	}
	s.Labels = map[string]string{discoveryv1.LabelServiceName: "web"}
	kind.PrepareForUpdate(t.Context(), s, old)
	if s.Generation != 4 {
		t.Errorf("a label makes generation %d, want 4", s.Generation)
	}
	s.AddressType = discoveryv1.AddressTypeFQDN
	if got := strings.Join(messages(kind.ValidateUpdate(t.Context(), s, old)), "\n"); !strings.Contains(got, `addressType: Invalid value: null: field is immutable`) {
		t.Errorf("another type gives %q", got)
	}
}

func TestColumnsOfEndpointSlices(t *testing.T) {
	t.Parallel()
	s := slice(func(s *discoveryv1.EndpointSlice) {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: ptr.To("dns")})
		s.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1", "10.0.0.2"}}, {Addresses: []string{"10.0.0.3", "10.0.0.4", "10.0.0.5"}}}
	})
	want := []any{"web-1", "IPv4", "80,dns", "10.0.0.1,10.0.0.2,10.0.0.3 + 2 more...", "<unknown>"}
	if diff := cmp.Diff(want, endpointSliceKind().Row(s)); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	s.Ports, s.Endpoints = nil, nil
	want = []any{"web-1", "IPv4", "<unset>", "<unset>", "<unknown>"}
	if diff := cmp.Diff(want, endpointSliceKind().Row(s)); diff != "" {
		t.Errorf("row of an empty one (-want +got):\n%s", diff)
	}
}
