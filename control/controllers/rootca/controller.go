// Package rootca gives every namespace the ConfigMap kube-root-ca.crt, with which
// pods verify the API server: kube-controller-manager's
// root-ca-certificate-publisher-controller. In flow namespaces and ConfigMaps by
// informer, out flow that one ConfigMap.
package rootca

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
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
	read       func() ([]byte, error)
	logger     *slog.Logger
}

// rereadEvery is how often the bundle is compared with what is published:
// authorities are replaced while the controller runs.
const rereadEvery = 10 * time.Second

// New returns a controller that publishes the PEM bundle that ca returns, on the
// client and the informers, which the caller starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, ca func() ([]byte, error), logger *slog.Logger) *Controller {
	namespaces, configMaps := factory.Core().V1().Namespaces(), factory.Core().V1().ConfigMaps()
	c := &Controller{
		client: client, namespaces: namespaces.Lister(), configMaps: configMaps.Lister(), read: ca, logger: logger,
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
	var rereading sync.WaitGroup
	defer rereading.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rereading.Go(func() { c.reread(ctx) })
	return reconcile.Run(ctx, c.sources, c.queue)
}

// reread has every namespace looked at when the bundle has changed.
func (c *Controller) reread(ctx context.Context) {
	ticker := time.NewTicker(rereadEvery)
	defer ticker.Stop()
	var last []byte
	for {
		ca, err := c.read()
		switch {
		case err != nil:
			c.logger.Warn("read the cluster's authorities; trying again", "error", err)
		case last != nil && !bytes.Equal(ca, last):
			namespaces, err := c.namespaces.List(labels.Everything())
			if err != nil {
				c.logger.Warn("list namespaces; trying again", "error", err)
				break
			}
			for _, ns := range namespaces {
				c.queue.Add(ns.Name)
			}
			last = ca
		default:
			last = ca
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (c *Controller) reconcile(ctx context.Context, namespace string) error {
	ns, err := c.namespaces.Get(namespace)
	if apierrors.IsNotFound(err) || (err == nil && ns.Status.Phase != corev1.NamespaceActive) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read namespace: %w", err)
	}
	ca, err := c.read()
	if err != nil {
		return fmt.Errorf("read the cluster's authorities: %w", err)
	}
	data := map[string]string{"ca.crt": string(ca)}
	current, err := c.configMaps.ConfigMaps(namespace).Get(name)
	switch {
	case apierrors.IsNotFound(err):
		_, err = c.client.CoreV1().ConfigMaps(namespace).Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: name, Annotations: map[string]string{descriptionAnnotation: description},
			},
			Data: data,
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
	case maps.Equal(current.Data, data) && current.Annotations[descriptionAnnotation] != "":
		return nil
	}
	changed := current.DeepCopy()
	changed.Data = data
	if changed.Annotations == nil {
		changed.Annotations = map[string]string{}
	}
	changed.Annotations[descriptionAnnotation] = description
	if _, err := c.client.CoreV1().ConfigMaps(namespace).Update(ctx, changed, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update config map: %w", err)
	}
	return nil
}
