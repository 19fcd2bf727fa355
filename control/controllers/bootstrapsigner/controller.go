// Package bootstrapsigner signs the ConfigMap kube-public/cluster-info with
// every bootstrap token that is for signing, so that whoever holds a token can
// believe what it reads there before it knows anybody:
// kube-controller-manager's bootstrap-signer-controller. In flow tokens and the
// ConfigMap by informer, out flow the signatures in it.
package bootstrapsigner

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/jws"
	"k8s.io/cluster-bootstrap/util/secrets"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// Controller signs the ConfigMap.
type Controller struct {
	client     kubernetes.Interface
	secrets    corelisters.SecretLister
	configMaps corelisters.ConfigMapLister
	sources    []reconcile.Source
	queue      *reconcile.Queue[string]
}

// New returns a controller on the client and the informers, which the caller
// starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) *Controller {
	secrets, configMaps := factory.Core().V1().Secrets(), factory.Core().V1().ConfigMaps()
	c := &Controller{client: client, secrets: secrets.Lister(), configMaps: configMaps.Lister()}
	c.queue = reconcile.NewQueue("bootstrapsigner", 1, logger, c.reconcile)
	c.sources = []reconcile.Source{
		{Informer: secrets.Informer(), Handler: reconcile.OnAny(func(s *corev1.Secret) {
			if s.Namespace == metav1.NamespaceSystem && s.Type == corev1.SecretType(api.SecretTypeBootstrapToken) {
				c.queue.Add(api.ConfigMapClusterInfo)
			}
		})},
		{Informer: configMaps.Informer(), Handler: reconcile.OnAny(func(m *corev1.ConfigMap) {
			if m.Namespace == metav1.NamespacePublic && m.Name == api.ConfigMapClusterInfo {
				c.queue.Add(m.Name)
			}
		})},
	}
	return c
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	return reconcile.Run(ctx, c.sources, c.queue)
}

func (c *Controller) reconcile(ctx context.Context, name string) error {
	current, err := c.configMaps.ConfigMaps(metav1.NamespacePublic).Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read config map: %w", err)
	}
	content, known := current.Data[api.KubeConfigKey]
	if !known {
		return nil
	}
	tokens, again, err := c.tokens()
	if err != nil {
		return err
	}
	data := maps.Clone(current.Data)
	maps.DeleteFunc(data, func(key, _ string) bool { return strings.HasPrefix(key, api.JWSSignatureKeyPrefix) })
	for id, secret := range tokens {
		signature, err := jws.ComputeDetachedSignature(content, id, secret)
		if err != nil {
			return fmt.Errorf("sign with token %s: %w", id, err)
		}
		data[api.JWSSignatureKeyPrefix+id] = signature
	}
	if again > 0 {
		c.queue.AddAfter(name, again)
	}
	if maps.Equal(data, current.Data) {
		return nil
	}
	changed := current.DeepCopy()
	changed.Data = data
	if _, err := c.client.CoreV1().ConfigMaps(changed.Namespace).Update(ctx, changed, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("write signatures: %w", err)
	}
	return nil
}

// tokens returns the tokens that sign, and when the first of them expires, zero
// for never.
func (c *Controller) tokens() (tokens map[string]string, again time.Duration, err error) {
	found, err := c.secrets.Secrets(metav1.NamespaceSystem).List(labels.Everything())
	if err != nil {
		return nil, 0, fmt.Errorf("list tokens: %w", err)
	}
	now := time.Now()
	tokens = map[string]string{}
	for _, secret := range found {
		if secret.Type != corev1.SecretType(api.SecretTypeBootstrapToken) || secret.DeletionTimestamp != nil {
			continue
		}
		id, key := secrets.GetData(secret, api.BootstrapTokenIDKey), secrets.GetData(secret, api.BootstrapTokenSecretKey)
		left, expired := secrets.GetExpiration(secret, now)
		if id == "" || key == "" || expired || secret.Name != api.BootstrapTokenSecretPrefix+id || secrets.GetData(secret, api.BootstrapTokenUsageSigningKey) != "true" {
			continue
		}
		tokens[id] = key
		if left > 0 && (again == 0 || left < again) {
			again = left
		}
	}
	return tokens, again, nil
}
