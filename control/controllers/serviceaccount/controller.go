// Package serviceaccount gives every namespace its ServiceAccount "default":
// kube-controller-manager's serviceaccount-controller. In flow namespaces and
// service accounts by informer, out flow creations; no token is made here.
package serviceaccount

import (
	"context"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// name is the service account every namespace has.
const name = "default"

// Controller makes default service accounts.
type Controller struct {
	client     kubernetes.Interface
	namespaces corelisters.NamespaceLister
	accounts   corelisters.ServiceAccountLister
	sources    []reconcile.Source
	queue      *reconcile.Queue[string]
}

// New returns a controller on the client and the informers, which the caller
// starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) *Controller {
	namespaces, accounts := factory.Core().V1().Namespaces(), factory.Core().V1().ServiceAccounts()
	c := &Controller{client: client, namespaces: namespaces.Lister(), accounts: accounts.Lister()}
	c.queue = reconcile.NewQueue("serviceaccount", 1, logger, c.reconcile)
	wake := func(ns *corev1.Namespace) { c.queue.Add(ns.Name) }
	c.sources = []reconcile.Source{
		{Informer: namespaces.Informer(), Handler: reconcile.Handler(wake, func(_, ns *corev1.Namespace) { wake(ns) }, nil)},
		{Informer: accounts.Informer(), Handler: reconcile.Handler(nil, nil, func(gone *corev1.ServiceAccount) {
			if gone.Name == name {
				c.queue.Add(gone.Namespace)
			}
		})},
	}
	return c
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	return reconcile.Run(ctx, c.sources, c.queue)
}

func (c *Controller) reconcile(ctx context.Context, namespace string) error {
	ns, err := c.namespaces.Get(namespace)
	if apierrors.IsNotFound(err) || (err == nil && ns.Status.Phase != corev1.NamespaceActive) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read namespace: %w", err)
	}
	if _, err := c.accounts.ServiceAccounts(namespace).Get(name); !apierrors.IsNotFound(err) {
		return err
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	_, err = c.client.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create service account: %w", err)
	}
	return nil
}
