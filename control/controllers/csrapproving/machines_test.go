package csrapproving

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func machine(name string, addresses ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, address := range addresses {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: address})
	}
	return n
}

func TestAServingCertificateIsForTheNodesOwnNameAndAddresses(t *testing.T) {
	t.Parallel()
	factory := informers.NewSharedInformerFactory(fake.NewClientset(), 0)
	nodes, services, slices := factory.Core().V1().Nodes(), factory.Core().V1().Services(), factory.Discovery().V1().EndpointSlices()
	for _, n := range []*corev1.Node{
		// n1 claims addresses of others as its own, which it can.
		machine("n1", "192.0.2.1", "2001:db8::1", "192.0.2.2", "10.96.0.1", "192.0.2.9", "127.0.0.1"), machine("n2", "192.0.2.2"),
	} {
		if err := nodes.Informer().GetStore().Add(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := services.Informer().GetStore().Add(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"}, Spec: corev1.ServiceSpec{ClusterIPs: []string{"10.96.0.1"}}}); err != nil {
		t.Fatal(err)
	}
	if err := slices.Informer().GetStore().Add(&discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes", Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
		Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.9"}}},
	}); err != nil {
		t.Fatal(err)
	}
	m := machines{nodes.Lister(), services.Lister(), slices.Lister()}
	for name, tc := range map[string]struct {
		user, subject string
		groups        []string
		dns           []string
		ips           []string
		want          string // empty: approved
	}{
		"its own":                        {dns: []string{"n1"}, ips: []string{"192.0.2.1", "2001:db8::1"}},
		"only the name":                  {dns: []string{"n1"}},
		"somebody else asks":             {user: "system:node:n2", want: "system:node:n2 asks for a certificate of node n1"},
		"a user with the name of a node": {groups: []string{"system:authenticated"}, want: "asks for a certificate of node n1"},
		"a node that is not there":       {user: "system:node:n3", subject: "system:node:n3", want: "does not exist yet"},
		"a foreign name":                 {dns: []string{"n1", "kubernetes.default.svc"}, want: "kubernetes.default.svc is not the node's name"},
		"an address it does not have":    {ips: []string{"192.0.2.77"}, want: "192.0.2.77 is not an address of node n1"},
		"another node's address":         {ips: []string{"192.0.2.1", "192.0.2.2"}, want: "192.0.2.2 is also node n2's"},
		"a service's address":            {ips: []string{"10.96.0.1"}, want: "service default/kubernetes's"},
		"an API server's address":        {ips: []string{"192.0.2.9"}, want: "an API server's"},
		"loopback":                       {ips: []string{"127.0.0.1"}, want: "no machine's alone"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.subject == "" {
				tc.subject = "system:node:n1"
			}
			if tc.user == "" {
				tc.user = tc.subject
			}
			if tc.groups == nil {
				tc.groups = []string{"system:nodes", "system:authenticated"}
			}
			request := &x509.CertificateRequest{Subject: pkix.Name{CommonName: tc.subject}, DNSNames: tc.dns}
			for _, ip := range tc.ips {
				request.IPAddresses = append(request.IPAddresses, net.ParseIP(ip))
			}
			why, err := m.refuse(&certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{Username: tc.user, Groups: tc.groups}}, request)
			if err != nil || (tc.want == "") != (why == "") || !strings.Contains(why, tc.want) {
				t.Errorf("got %q, %v; want %q", why, err, tc.want)
			}
		})
	}
}
