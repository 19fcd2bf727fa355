package csrkind

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
)

func TestWhatEachSignerWants(t *testing.T) {
	t.Parallel()
	node := pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}
	client := []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}
	serving := []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageServerAuth}
	const kubelet, kubeletServing, user = certificatesv1.KubeAPIServerClientKubeletSignerName, certificatesv1.KubeletServingSignerName, certificatesv1.KubeAPIServerClientSignerName
	for name, tc := range map[string]struct {
		signer  string
		request x509.CertificateRequest
		usages  []certificatesv1.KeyUsage
		want    string
	}{
		"an agent's client":                 {kubelet, x509.CertificateRequest{Subject: node}, client, ""},
		"an agent's client with a name":     {kubelet, x509.CertificateRequest{Subject: node, DNSNames: []string{"n1"}}, client, "DNS subjectAltNames are not allowed"},
		"an agent's client with an address": {kubelet, x509.CertificateRequest{Subject: node, IPAddresses: []net.IP{{1, 2, 3, 4}}}, client, "IP subjectAltNames are not allowed"},
		"an agent's client that serves":     {kubelet, x509.CertificateRequest{Subject: node}, serving, "usages did not match [client auth digital signature key encipherment]"},
		"no node's organization":            {kubelet, x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:n1"}}, client, "subject organization is not system:nodes"},
		"no node's name":                    {kubelet, x509.CertificateRequest{Subject: pkix.Name{CommonName: "n1", Organization: []string{"system:nodes"}}}, client, "subject common name does not begin with system:node: "},
		"an agent's endpoint":               {kubeletServing, x509.CertificateRequest{Subject: node, DNSNames: []string{"n1"}}, serving, ""},
		"an agent's endpoint without names": {kubeletServing, x509.CertificateRequest{Subject: node}, serving, "DNS or IP subjectAltName is required"},
		"a user":                            {user, x509.CertificateRequest{Subject: pkix.Name{CommonName: "jane"}}, client, ""},
		"a user without client auth":        {user, x509.CertificateRequest{}, serving, "usages did not match [client auth digital signature key encipherment]"},
		"a proxy":                           {ProxySigner, x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:kube-proxy"}}, client, ""},
		"a proxy in a group":                {ProxySigner, x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:kube-proxy", Organization: []string{"system:masters"}}}, client, "subject organizations are not allowed"},
		"another user as a proxy":           {ProxySigner, x509.CertificateRequest{Subject: pkix.Name{CommonName: "jane"}}, client, "subject common name is not system:kube-proxy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if err := Signers[tc.signer](&tc.request, tc.usages); err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
