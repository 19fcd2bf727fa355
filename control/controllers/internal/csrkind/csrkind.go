// Package csrkind knows the kinds of certificates that the cluster signs: which
// signer each has, and what a request for it must say and must not. It is pure;
// the controllers that approve and that sign judge by it alike.
package csrkind

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/util/sets"
)

const (
	// ProxySigner signs the client certificates of skiff-proxy, which all are
	// the user system:kube-proxy.
	ProxySigner = "skiff.dev/kube-proxy-client"
	// ProxyUser is that user.
	ProxyUser = "system:kube-proxy"

	nodesGroup = "system:nodes"
	nodePrefix = "system:node:"
)

// Signers are those this cluster has, with what each checks of a request. Other
// signers are other people's.
var Signers = map[string]func(*x509.CertificateRequest, []certificatesv1.KeyUsage) error{
	certificatesv1.KubeAPIServerClientSignerName:        Client,
	certificatesv1.KubeAPIServerClientKubeletSignerName: KubeletClient,
	certificatesv1.KubeletServingSignerName:             KubeletServing,
	ProxySigner:                                         Proxy,
}

// What a request for a kubelet's certificate can be wrong about, in Kubernetes' words.
var (
	errOrganization = errors.New("subject organization is not system:nodes")
	errCommonName   = errors.New("subject common name does not begin with system:node: ")
	errNamesNeeded  = errors.New("DNS or IP subjectAltName is required")
	errDNS          = errors.New("DNS subjectAltNames are not allowed")
	errEmail        = errors.New("Email subjectAltNames are not allowed")
	errIP           = errors.New("IP subjectAltNames are not allowed")
	errURI          = errors.New("URI subjectAltNames are not allowed")
)

// Client checks a request for a certificate of any client of the API server.
func Client(_ *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	allowed := sets.New(certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageClientAuth)
	if !slices.Contains(usages, certificatesv1.UsageClientAuth) || !allowed.HasAll(usages...) {
		return fmt.Errorf("usages did not match %v", sets.List(allowed))
	}
	return nil
}

// KubeletClient checks a request for the certificate by which an agent is known
// to the API server.
func KubeletClient(request *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	if err := node(request); err != nil {
		return err
	}
	if err := nameless(request); err != nil {
		return err
	}
	return exactly(usages, certificatesv1.UsageClientAuth)
}

// KubeletServing checks a request for the certificate of an agent's own endpoint.
func KubeletServing(request *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	if err := node(request); err != nil {
		return err
	}
	switch {
	case len(request.DNSNames) == 0 && len(request.IPAddresses) == 0:
		return errNamesNeeded
	case len(request.EmailAddresses) > 0:
		return errEmail
	case len(request.URIs) > 0:
		return errURI
	}
	return exactly(usages, certificatesv1.UsageServerAuth)
}

// Proxy checks a request for the certificate of a proxy.
func Proxy(request *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	if request.Subject.CommonName != ProxyUser {
		return fmt.Errorf("subject common name is not %s", ProxyUser)
	}
	if len(request.Subject.Organization) > 0 {
		return errors.New("subject organizations are not allowed")
	}
	if err := nameless(request); err != nil {
		return err
	}
	return exactly(usages, certificatesv1.UsageClientAuth)
}

// NodeName is the name of the node that the request's subject is.
func NodeName(request *x509.CertificateRequest) string {
	return strings.TrimPrefix(request.Subject.CommonName, nodePrefix)
}

func node(request *x509.CertificateRequest) error {
	if !slices.Equal(request.Subject.Organization, []string{nodesGroup}) {
		return errOrganization
	}
	if !strings.HasPrefix(request.Subject.CommonName, nodePrefix) {
		return errCommonName
	}
	return nil
}

func nameless(request *x509.CertificateRequest) error {
	switch {
	case len(request.DNSNames) > 0:
		return errDNS
	case len(request.EmailAddresses) > 0:
		return errEmail
	case len(request.IPAddresses) > 0:
		return errIP
	case len(request.URIs) > 0:
		return errURI
	}
	return nil
}

// exactly wants that one extended usage, digital signature, and, for keys that
// can, key encipherment.
func exactly(usages []certificatesv1.KeyUsage, extended certificatesv1.KeyUsage) error {
	without := sets.New(certificatesv1.UsageDigitalSignature, extended)
	with := without.Clone().Insert(certificatesv1.UsageKeyEncipherment)
	if got := sets.New(usages...); !got.Equal(with) && !got.Equal(without) {
		return fmt.Errorf("usages did not match %v", sets.List(with))
	}
	return nil
}

// Has says whether the request has a condition of the type.
func Has(r *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == kind })
}
