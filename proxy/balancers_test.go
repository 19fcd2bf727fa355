package proxy

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/internal/addresspool"
	"github.com/skiff-run/skiff/proxy/table"
)

func TestWhichAddressesAMachineMayAnnounce(t *testing.T) {
	t.Parallel()
	var services []*corev1.Service
	tab := &table.Table{}
	add := func(ip string, marked, local bool, here int) {
		s := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}}
		if marked {
			s.Annotations = map[string]string{addresspool.Mark: "pool"}
		}
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip}}
		services = append(services, s)
		tab.Ports = append(tab.Ports, &table.ServicePort{LoadBalancerIPs: []netip.Addr{netip.MustParseAddr(ip)}, ExternalLocal: local, Local: make([]table.Endpoint, here)})
	}
	add("192.0.2.1", true, false, 0)
	add("192.0.2.2", true, true, 0)
	add("192.0.2.3", true, true, 1)
	add("192.0.2.4", false, false, 0)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}}
	for name, tc := range map[string]struct {
		change func()
		want   map[string]bool
	}{
		"a usual machine":      {func() {}, map[string]bool{"192.0.2.1": true, "192.0.2.2": false, "192.0.2.3": true}},
		"one that is excluded": {func() { node.Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""} }, map[string]bool{"192.0.2.1": false, "192.0.2.2": false, "192.0.2.3": false}},
	} {
		node.Labels = nil
		tc.change()
		got := map[string]bool{}
		for address, may := range announced(services, tab, node) {
			got[address.String()] = may
		}
		if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if got := announced(services[:1], tab, nil); got[netip.MustParseAddr("192.0.2.1")] {
		t.Error("a machine that has not registered may announce")
	}
}
