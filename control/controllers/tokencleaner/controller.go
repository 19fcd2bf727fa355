// Package tokencleaner deletes bootstrap tokens that have expired:
// kube-controller-manager's token-cleaner-controller. In flow Secrets by informer,
// out flow deletions, each at the moment the token expires.
package tokencleaner

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

const (
	bootstrapToken corev1.SecretType = "bootstrap.kubernetes.io/token"
	expirationKey                    = "expiration"
)

// Controller deletes expired bootstrap tokens.
type Controller struct {
	client  kubernetes.Interface
	secrets corelisters.SecretLister
	sources []reconcile.Source
	queue   *reconcile.Queue[string]
	now     func() time.Time
}

// New returns a controller on the client and the informers, which the caller
// starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) *Controller {
	secrets := factory.Core().V1().Secrets()
	c := &Controller{client: client, secrets: secrets.Lister(), now: time.Now}
	c.queue = reconcile.NewQueue("tokencleaner", 1, logger, c.reconcile)
	wake := func(secret *corev1.Secret) {
		if secret.Type == bootstrapToken && secret.Namespace == metav1.NamespaceSystem {
			c.queue.Add(secret.Name)
		}
	}
	c.sources = []reconcile.Source{{
		Informer: secrets.Informer(),
		Handler:  reconcile.Handler(wake, func(_, secret *corev1.Secret) { wake(secret) }, nil),
	}}
	return c
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	return reconcile.Run(ctx, c.sources, c.queue)
}

func (c *Controller) reconcile(ctx context.Context, name string) error {
	secret, err := c.secrets.Secrets(metav1.NamespaceSystem).Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read secret: %w", err)
	}
	left, expires := timeLeft(secret, c.now())
	switch {
	case !expires:
		return nil
	case left > 0:
		c.queue.AddAfter(name, left)
		return nil
	}
	options := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &secret.UID}}
	err = c.client.CoreV1().Secrets(secret.Namespace).Delete(ctx, name, options)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete expired token: %w", err)
	}
	return nil
}

// timeLeft returns how long a token is valid; a time that cannot be read counts as
// past, for such a token must not live for ever.
func timeLeft(secret *corev1.Secret, now time.Time) (left time.Duration, expires bool) {
	text := string(secret.Data[expirationKey])
	if text == "" {
		return 0, false
	}
	end, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return 0, true
	}
	return end.Sub(now), true
}
