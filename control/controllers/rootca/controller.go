// Package rootca gives every namespace the ConfigMap kube-root-ca.crt, with which
// pods verify the API server: kube-controller-manager's
// root-ca-certificate-publisher-controller. In flow namespaces and ConfigMaps by
// informer, out flow that one ConfigMap.
package rootca

import (
	"context"
	"fmt"
	"log/slog"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

const (
	name                  = "kube-root-ca.crt"
	descriptionAnnotation = "kubernetes.io/description"
	description           = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. " +
		"No other usage is guaranteed across distributions of Kubernetes clusters."
)

// Controller publishes the CA.
type Controller struct {
	client     kubernetes.Interface
	namespaces corelisters.NamespaceLister
	configMaps corelisters.ConfigMapLister
	sources    []reconcile.Source
	queue      *reconcile.Queue[string]
	data       map[string]string
}

// New returns a controller that publishes the PEM bundle ca, on the client and the
// informers, which the caller starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, ca []byte, logger *slog.Logger) *Controller {
	namespaces, configMaps := factory.Core().V1().Namespaces(), factory.Core().V1().ConfigMaps()
	c := &Controller{
		client: client, namespaces: namespaces.Lister(), configMaps: configMaps.Lister(), data: map[string]string{"ca.crt": string(ca)},
	}
	c.queue = reconcile.NewQueue("rootca", 1, logger, c.reconcile)
	wake := func(ns *corev1.Namespace) { c.queue.Add(ns.Name) }
	changed := func(configMap *corev1.ConfigMap) {
		if configMap.Name == name {
			c.queue.Add(configMap.Namespace)
		}
	}
	c.sources = []reconcile.Source{
		{Informer: namespaces.Informer(), Handler: reconcile.Handler(wake, func(_, ns *corev1.Namespace) { wake(ns) }, nil)},
		{Informer: configMaps.Informer(), Handler: reconcile.Handler(nil, func(_, current *corev1.ConfigMap) { changed(current) }, changed)},
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
	current, err := c.configMaps.ConfigMaps(namespace).Get(name)
	switch {
	case apierrors.IsNotFound(err):
		_, err = c.client.CoreV1().ConfigMaps(namespace).Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: name, Annotations: map[string]string{descriptionAnnotation: description},
			},
			Data: c.data,
		}, metav1.CreateOptions{})
		if apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err) {
			// The namespace went, or the informer is late and an event will come.
			return nil
		}
		if err != nil {
			return fmt.Errorf("create config map: %w", err)
		}
		return nil
	case err != nil:
		return fmt.Errorf("read config map: %w", err)
	case maps.Equal(current.Data, c.data) && current.Annotations[descriptionAnnotation] != "":
		return nil
	}
	changed := current.DeepCopy()
	changed.Data = c.data
	if changed.Annotations == nil {
		changed.Annotations = map[string]string{}
	}
	changed.Annotations[descriptionAnnotation] = description
	if _, err := c.client.CoreV1().ConfigMaps(namespace).Update(ctx, changed, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update config map: %w", err)
	}
	return nil
}
