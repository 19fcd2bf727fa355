package main

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/skiff-run/skiff/internal/apiclient"
	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/pki"
	"github.com/skiff-run/skiff/internal/version"
)

// rotates says whether the API issues this machine's certificates.
func rotates(c *config.Agent) bool { return c.RotateCertificates || c.BootstrapKubeconfig != "" }

// certificateDir is where certificates that the API issues are kept.
func certificateDir(c *config.Agent) string {
	return filepath.Join(filepath.Dir(c.Kubeconfig), "pki")
}

func subject(node string) pkix.Name {
	return pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}}
}

// connect prepares the way to the control plane.
func connect(c *config.Agent, node string, logger *slog.Logger) (*apiclient.Connection, error) {
	options := apiclient.Options{
		Kubeconfig: c.Kubeconfig, Addresses: c.ControlAddresses, UserAgent: "skiff-agent/" + version.Version, Logger: logger,
	}
	if rotates(c) {
		options.Rotation = &apiclient.Rotation{
			Dir: certificateDir(c), Name: "agent-client", Signer: certificatesv1.KubeAPIServerClientKubeletSignerName,
			Subject: subject(node), BootstrapKubeconfig: c.BootstrapKubeconfig, TrustFiles: []string{c.ClientCAFile},
		}
	}
	return apiclient.Load(options)
}

// servingCertificate returns the certificate of the agent's endpoint, nil for
// that of its files, and what keeps it valid until the function that returns is
// called.
func servingCertificate(c *config.Agent, connection *apiclient.Connection, node string, ip net.IP) (
	certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error), keep func() (stop func()), err error,
) {
	if !rotates(c) {
		return nil, func() func() { return func() {} }, nil
	}
	first, err := firstPair(c)
	if err != nil {
		return nil, nil, err
	}
	manager, err := connection.NewServing(apiclient.Serving{
		Dir: certificateDir(c), Name: "agent-serving", First: first,
		Request: func() *x509.CertificateRequest {
			return &x509.CertificateRequest{Subject: subject(node), DNSNames: []string{node}, IPAddresses: []net.IP{ip}}
		},
	})
	if err != nil {
		return nil, nil, err
	}
	certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if current := manager.Current(); current != nil {
			return current, nil
		}
		return nil, errors.New("no serving certificate yet: kubectl get csr shows whether it waits for approval")
	}
	return certificate, func() func() { manager.Start(); return manager.Stop }, nil
}

// firstPair reads the certificate that joining left; there need not be one.
func firstPair(c *config.Agent) (pki.Pair, error) {
	certificate, err := os.ReadFile(c.TLSCertFile)
	if errors.Is(err, os.ErrNotExist) {
		return pki.Pair{}, nil
	}
	if err != nil {
		return pki.Pair{}, err
	}
	key, err := os.ReadFile(c.TLSKeyFile)
	if err != nil {
		return pki.Pair{}, err
	}
	return pki.Pair{Certificate: certificate, Key: key}, nil
}
