package apiclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/certificate"

	"github.com/skiff-run/skiff/internal/pki"
)

// ProxySigner issues the client certificates of proxies.
const ProxySigner = "skiff.dev/kube-proxy-client"

// Rotation gets a daemon's client certificate from the API's signers, with a
// key that never leaves the machine, and renews it at 70 to 90 % of its life.
type Rotation struct {
	// Dir is where certificate and key are kept, as Name-current.pem.
	Dir, Name string
	// Signer and Subject are what is asked for.
	Signer  string
	Subject pkix.Name
	// BootstrapKubeconfig holds the token to ask with while there is no valid
	// certificate; empty: the kubeconfig's own certificate is the first.
	BootstrapKubeconfig string
	// TrustFiles are kept at the authorities that the cluster trusts now, beside
	// the kubeconfig itself.
	TrustFiles []string
}

// adoptKubeconfig makes the kubeconfig of a machine that has only been given a
// bootstrap kubeconfig: the same cluster, without the token.
func (r *Rotation) adoptKubeconfig(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	given, err := clientcmd.BuildConfigFromFlags("", r.BootstrapKubeconfig)
	if err != nil {
		return fmt.Errorf("bootstrap kubeconfig %s: %w", r.BootstrapKubeconfig, err)
	}
	ca := given.CAData
	if given.CAFile != "" {
		if ca, err = os.ReadFile(given.CAFile); err != nil {
			return fmt.Errorf("bootstrap kubeconfig %s: %w", r.BootstrapKubeconfig, err)
		}
	}
	const name = "skiff"
	data, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: given.Host, CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{r.Subject.CommonName: {}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: r.Subject.CommonName}},
		CurrentContext: name,
	})
	if err != nil {
		return fmt.Errorf("encode kubeconfig %s: %w", path, err)
	}
	return pki.WriteFile(path, data)
}

// begin makes the trust files that are not there yet.
func (r *Rotation) begin(ca []byte) error {
	for _, path := range r.TrustFiles {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			if err := pki.WriteFile(path, ca); err != nil {
				return err
			}
		}
	}
	return nil
}

// current is the file with the newest certificate and its key.
func (r *Rotation) current() string { return filepath.Join(r.Dir, r.Name+"-current.pem") }

// rotating are credentials of which the API issues the certificate.
type rotating struct {
	*kubeconfigFile
	manager certificate.Manager
}

func (r *rotating) current() (*tls.Certificate, *x509.CertPool) {
	_, roots := r.kubeconfigFile.current()
	return r.manager.Current(), roots
}

// bearer is none: who has a certificate needs no token.
func (r *rotating) bearer() string { return "" }

// newManager makes what asks for the certificate.
func (c *Connection) newManager(r *Rotation, file *kubeconfigFile) (certificate.Manager, error) {
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("keep certificates: %w", err)
	}
	store, err := certificate.NewFileStore(r.Name, r.Dir, r.Dir, "", "")
	if err != nil {
		return nil, fmt.Errorf("keep certificates in %s: %w", r.Dir, err)
	}
	bootstrap := func() (kubernetes.Interface, error) { return c.client, nil }
	if r.BootstrapKubeconfig != "" {
		given, err := readKubeconfig(r.BootstrapKubeconfig)
		if errors.Is(err, fs.ErrNotExist) {
			// It may be gone once there is a certificate: its token has expired anyway.
			given, err = file, nil
		}
		if err != nil {
			return nil, err
		}
		client, err := kubernetes.NewForConfig(c.restConfig(&transport{credentials: given, dialer: c.dialer, hostname: c.hostname}))
		if err != nil {
			return nil, fmt.Errorf("make client of bootstrap kubeconfig: %w", err)
		}
		bootstrap = func() (kubernetes.Interface, error) { return client, nil }
	}
	manager, err := certificate.NewManager(&certificate.Config{
		ClientsetFn: func(current *tls.Certificate) (kubernetes.Interface, error) {
			if current == nil {
				return bootstrap()
			}
			return c.client, nil
		},
		Template: &x509.CertificateRequest{Subject: r.Subject}, SignerName: r.Signer, GetUsages: certificate.DefaultKubeletClientGetUsages,
		CertificateStore: store, BootstrapCertificatePEM: file.pair.Certificate, BootstrapKeyPEM: file.pair.Key, Name: r.Name,
	})
	if err != nil {
		return nil, fmt.Errorf("certificate %s in %s: %w; remove the file to ask for a new one", r.Name, r.Dir, err)
	}
	return manager, nil
}

// Wait returns once there is a certificate to show.
func (c *Connection) Wait(ctx context.Context) error {
	if c.rotating == nil {
		return nil
	}
	told := false
	for c.rotating.manager.Current() == nil {
		if !told {
			told = true
			c.logger.Info("waiting for a client certificate", "signer", c.rotation.Signer, "subject", c.rotation.Subject.CommonName)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// Serving is the certificate of a daemon's own endpoint, issued by the API.
type Serving struct {
	// Dir and Name as in Rotation.
	Dir, Name string
	Subject   pkix.Name
	// Request returns what the endpoint is called; nil while that is not known.
	Request func() *x509.CertificateRequest
	// First is used until the API has issued one; it may be empty.
	First pki.Pair
}

// NewServing returns a manager of the certificate, which the caller starts and stops.
func (c *Connection) NewServing(s Serving) (certificate.Manager, error) {
	store, err := certificate.NewFileStore(s.Name, s.Dir, s.Dir, "", "")
	if err != nil {
		return nil, fmt.Errorf("keep certificates in %s: %w", s.Dir, err)
	}
	manager, err := certificate.NewManager(&certificate.Config{
		ClientsetFn: func(*tls.Certificate) (kubernetes.Interface, error) { return c.client, nil },
		GetTemplate: s.Request, SignerName: certificatesv1.KubeletServingSignerName, GetUsages: certificate.DefaultKubeletServingGetUsages,
		CertificateStore: store, BootstrapCertificatePEM: s.First.Certificate, BootstrapKeyPEM: s.First.Key, Name: s.Name,
	})
	if err != nil {
		return nil, fmt.Errorf("certificate %s in %s: %w; remove the file to ask for a new one", s.Name, s.Dir, err)
	}
	return manager, nil
}
