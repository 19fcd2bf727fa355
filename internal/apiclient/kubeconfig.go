package apiclient

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/skiff-run/skiff/internal/pki"
)

// lookEvery is how often files are looked at for a change.
const lookEvery = time.Second

// kubeconfigFile is a file with credentials, which may be replaced at any time.
type kubeconfigFile struct {
	path   string
	server string

	// mu guards what follows.
	mu          sync.Mutex
	looked      time.Time
	stamps      map[string]pki.Stamp
	certificate *tls.Certificate
	roots       *x509.CertPool
	token       string
	// pair is the certificate with its key, and ca the roots, PEM.
	pair pki.Pair
	ca   []byte
}

func readKubeconfig(path string) (*kubeconfigFile, error) {
	k := &kubeconfigFile{path: path}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.read(); err != nil {
		return nil, err
	}
	return k, nil
}

// read reads the file and those it names.
func (k *kubeconfigFile) read() error {
	stamps := map[string]pki.Stamp{}
	config, err := clientcmd.BuildConfigFromFlags("", k.path)
	if err != nil {
		return fmt.Errorf("kubeconfig %s: %w", k.path, err)
	}
	for _, path := range []string{k.path, config.CertFile, config.KeyFile, config.CAFile, config.BearerTokenFile} {
		if path == "" {
			continue
		}
		if stamps[path], err = pki.StampOf(path); err != nil {
			return fmt.Errorf("kubeconfig %s: %w", k.path, err)
		}
	}
	if err := rest.LoadTLSFiles(config); err != nil {
		return fmt.Errorf("kubeconfig %s: %w", k.path, err)
	}
	var certificate *tls.Certificate
	if len(config.CertData) > 0 {
		pair, err := tls.X509KeyPair(config.CertData, config.KeyData)
		if err != nil {
			return fmt.Errorf("kubeconfig %s: client certificate: %w", k.path, err)
		}
		certificate = &pair
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(config.CAData) && !strings.HasPrefix(config.Host, "http://") {
		return fmt.Errorf("kubeconfig %s: certificate-authority-data holds no certificate: without it nobody can be believed", k.path)
	}
	k.server, k.certificate, k.roots, k.token, k.stamps = config.Host, certificate, roots, config.BearerToken, stamps
	k.pair, k.ca = pki.Pair{Certificate: config.CertData, Key: config.KeyData}, config.CAData
	return nil
}

// refresh reads the files again when one was replaced. While they cannot be
// used, the last good content stays.
func (k *kubeconfigFile) refresh() {
	if time.Since(k.looked) < lookEvery {
		return
	}
	k.looked = time.Now()
	for path, seen := range k.stamps {
		if now, err := pki.StampOf(path); err != nil || now != seen {
			_ = k.read()
			return
		}
	}
}

func (k *kubeconfigFile) current() (*tls.Certificate, *x509.CertPool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refresh()
	return k.certificate, k.roots
}

func (k *kubeconfigFile) bearer() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refresh()
	return k.token
}
