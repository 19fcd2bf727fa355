package apiclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/skiff-run/skiff/internal/pki"
)

// trustEvery is how often the trusted authorities are asked for. A new one
// signs long after it is published.
const (
	trustEvery = 5 * time.Minute
	trustRetry = 2 * time.Second
)

// rootCA is the ConfigMap in each namespace that holds the authorities.
const rootCA = "kube-root-ca.crt"

// followAuthorities keeps the authorities in the kubeconfig and the trust files
// at those that the cluster trusts, until ctx ends. They come over a connection
// that the present ones vouch for.
func (c *Connection) followAuthorities(ctx context.Context) {
	if c.Wait(ctx) != nil {
		return
	}
	for {
		pause := trustEvery
		if err := c.trust(ctx); err != nil && ctx.Err() == nil {
			c.logger.Debug("cannot ask for the trusted authorities; those known are used", "error", err)
			pause = trustRetry
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (c *Connection) trust(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	published, err := c.client.CoreV1().ConfigMaps(metav1.NamespaceDefault).Get(ctx, rootCA, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the trusted authorities: %w", err)
	}
	bundle, err := pki.ParseBundle([]byte(published.Data["ca.crt"]))
	if err != nil {
		return fmt.Errorf("read the trusted authorities: %w", err)
	}
	wanted := pki.EncodeBundle(bundle)
	errs := []error{c.updateKubeconfig(wanted)}
	for _, path := range c.rotation.TrustFiles {
		present, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("read the trusted authorities: %w", err))
			continue
		}
		if !bytes.Equal(present, wanted) {
			c.logger.Info("trusted authorities changed", "file", path, "authorities", len(bundle))
			errs = append(errs, pki.WriteFile(path, wanted))
		}
	}
	return errors.Join(errs...)
}

// updateKubeconfig makes the kubeconfig hold the authorities and name the file
// of the newest certificate, so that others who read it are not left behind.
func (c *Connection) updateKubeconfig(authorities []byte) error {
	config, err := clientcmd.LoadFromFile(c.kubeconfig)
	if err != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	current := config.Contexts[config.CurrentContext]
	if current == nil || config.Clusters[current.Cluster] == nil || config.AuthInfos[current.AuthInfo] == nil {
		return fmt.Errorf("kubeconfig %s: its current context names no cluster or no user", c.kubeconfig)
	}
	changed := false
	// A file is kept by whoever named it.
	if cluster := config.Clusters[current.Cluster]; cluster.CertificateAuthority == "" && !bytes.Equal(cluster.CertificateAuthorityData, authorities) {
		cluster.CertificateAuthorityData, changed = authorities, true
	}
	newest := c.rotation.current()
	if user := config.AuthInfos[current.AuthInfo]; user.ClientCertificate != newest {
		if _, err := os.Stat(newest); err == nil {
			user.ClientCertificate, user.ClientKey = newest, newest
			user.ClientCertificateData, user.ClientKeyData, changed = nil, nil, true
		}
	}
	if !changed {
		return nil
	}
	data, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("encode kubeconfig %s: %w", c.kubeconfig, err)
	}
	return pki.WriteFile(c.kubeconfig, data)
}
