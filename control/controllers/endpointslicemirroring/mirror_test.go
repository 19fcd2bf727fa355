package endpointslicemirroring

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestMirror(t *testing.T) {
	t.Parallel()
	addresses := func(ips ...string) []corev1.EndpointAddress {
		var all []corev1.EndpointAddress
		for _, ip := range ips {
			all = append(all, corev1.EndpointAddress{IP: ip})
		}
		return all
	}
	port := []corev1.EndpointPort{{Name: "db", Port: 5432, Protocol: corev1.ProtocolTCP}}
	for name, tc := range map[string]struct {
		subsets []corev1.EndpointSubset
		want    []string
		flaws   flaws
	}{
		"ready and unready addresses":         {[]corev1.EndpointSubset{{Addresses: addresses("192.0.2.1"), NotReadyAddresses: addresses("192.0.2.2"), Ports: port}}, []string{"IPv4 db/TCP/5432/: [192.0.2.1] true [192.0.2.2] false"}, flaws{}},
		"each family has a slice":             {[]corev1.EndpointSubset{{Addresses: addresses("192.0.2.1", "2001:db8::1"), Ports: port}}, []string{"IPv4 db/TCP/5432/: [192.0.2.1] true", "IPv6 db/TCP/5432/: [2001:db8::1] true"}, flaws{}},
		"subsets of the same ports are one":   {[]corev1.EndpointSubset{{Addresses: addresses("192.0.2.1"), Ports: port}, {Addresses: addresses("192.0.2.2"), Ports: port}}, []string{"IPv4 db/TCP/5432/: [192.0.2.1] true [192.0.2.2] true"}, flaws{}},
		"addresses that are none are skipped": {[]corev1.EndpointSubset{{Addresses: addresses("192.0.2.1", "db.example.com"), Ports: port}}, []string{"IPv4 db/TCP/5432/: [192.0.2.1] true"}, flaws{1, 1}},
		"nothing gives nothing":               {nil, nil, flaws{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			object := &corev1.Endpoints{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: "shop", Name: "db", Labels: map[string]string{"a": "b"},
					Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: "{}", "note": "x"},
				},
				Subsets: tc.subsets,
			}
			desired, found := mirror(object)
			var got []string
			for _, id := range slices.Sorted(maps.Keys(desired)) {
				line := id + ":"
				for _, one := range desired[id].Endpoints {
					line += fmt.Sprint(" ", one.Addresses, " ", *one.Conditions.Ready)
				}
				got = append(got, line)
				want := map[string]string{"a": "b", discoveryv1.LabelServiceName: "db", discoveryv1.LabelManagedBy: ManagedBy}
				if diff := cmp.Diff(want, desired[id].Labels); diff != "" {
					t.Error(diff)
				}
				if diff := cmp.Diff(map[string]string{"note": "x"}, desired[id].Annotations); diff != "" {
					t.Error(diff)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			if found != tc.flaws {
				t.Errorf("flaws %+v, want %+v", found, tc.flaws)
			}
		})
	}
}
