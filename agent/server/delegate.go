package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/kubernetes"
)

const (
	tokenCache = 2 * time.Minute
	allowCache = 5 * time.Minute
	denyCache  = 30 * time.Second
	// reload is how often certificate files are looked at.
	reload = time.Minute
)

func backoff() *wait.Backoff {
	return &wait.Backoff{Duration: 500 * time.Millisecond, Factor: 1.5, Jitter: 0.2, Steps: 5}
}

// Delegated returns authentication by client certificates of the CA and by
// tokens the API server knows, and authorization by the API server. clientTLS
// completes the listener's TLS configuration.
func Delegated(ctx context.Context, client kubernetes.Interface, clientCAFile string) (authenticator.Request, authorizer.Authorizer, func(*tls.Config), error) {
	ca, err := dynamiccertificates.NewDynamicCAContentFromFile("client-ca", clientCAFile)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("client CA %s: %w", clientCAFile, err)
	}
	go ca.Run(ctx, 1)
	authn, _, err := authenticatorfactory.DelegatingAuthenticatorConfig{
		Anonymous:                          &apiserver.AnonymousAuthConfig{Enabled: false},
		TokenAccessReviewClient:            client.AuthenticationV1(),
		TokenAccessReviewTimeout:           10 * time.Second,
		WebhookRetryBackoff:                backoff(),
		CacheTTL:                           tokenCache,
		ClientCertificateCAContentProvider: ca,
	}.New()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("authentication of the HTTPS endpoint: %w", err)
	}
	authz, err := authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: client.AuthorizationV1(),
		AllowCacheTTL:             allowCache,
		DenyCacheTTL:              denyCache,
		WebhookRetryBackoff:       backoff(),
	}.New()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("authorization of the HTTPS endpoint: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.CurrentCABundleContent())
	return authn, authz, func(c *tls.Config) { c.ClientCAs = pool }, nil
}

// Certificate serves the files' certificate, and the new one when they change.
func Certificate(certFile, keyFile string) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	c := &certificate{certFile: certFile, keyFile: keyFile}
	if _, err := c.get(nil); err != nil {
		return nil, err
	}
	return c.get, nil
}

type certificate struct {
	certFile, keyFile string
	// mu guards what follows.
	mu      sync.Mutex
	current *tls.Certificate
	checked time.Time
	changed time.Time
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil && time.Since(c.checked) < reload {
		return c.current, nil
	}
	info, err := os.Stat(c.certFile)
	if err == nil && (c.current == nil || info.ModTime().After(c.changed)) {
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(c.certFile, c.keyFile); err == nil {
			c.current, c.changed = &pair, info.ModTime()
		}
	}
	c.checked = time.Now()
	if err != nil && c.current == nil {
		return nil, fmt.Errorf("certificate of the HTTPS endpoint: %w", err)
	}
	return c.current, nil
}
