// Package csrcleaner deletes certificate signing requests that have served
// their purpose or never will: kube-controller-manager's csrcleaner controller.
// In flow requests by informer, out flow their deletions, each at the moment
// its time is up.
package csrcleaner

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	certificateslisters "k8s.io/client-go/listers/certificates/v1"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// How long a request is kept after its last word, and one without any after it
// was made. The figures are Kubernetes'.
const (
	answeredLife = time.Hour
	pendingLife  = 24 * time.Hour
)

// Controller deletes requests.
type Controller struct {
	client   kubernetes.Interface
	requests certificateslisters.CertificateSigningRequestLister
	sources  []reconcile.Source
	queue    *reconcile.Queue[string]
}

// New returns a controller on the client and the informers, which the caller
// starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) *Controller {
	requests := factory.Certificates().V1().CertificateSigningRequests()
	c := &Controller{client: client, requests: requests.Lister()}
	c.queue = reconcile.NewQueue("csrcleaner", 1, logger, c.reconcile)
	wake := func(r *certificatesv1.CertificateSigningRequest) { c.queue.Add(r.Name) }
	c.sources = []reconcile.Source{{
		Informer: requests.Informer(),
		Handler:  reconcile.Handler(wake, func(_, r *certificatesv1.CertificateSigningRequest) { wake(r) }, nil),
	}}
	return c
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	return reconcile.Run(ctx, c.sources, c.queue)
}

func (c *Controller) reconcile(ctx context.Context, name string) error {
	r, err := c.requests.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read certificate signing request: %w", err)
	}
	if left := time.Until(end(r)); left > 0 {
		c.queue.AddAfter(name, left)
		return nil
	}
	err = c.client.CertificatesV1().CertificateSigningRequests().Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &r.UID}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete certificate signing request: %w", err)
	}
	return nil
}

// end is when a request has to go: an hour after it was approved, denied or
// failed, a day after it was made if nobody did that, and when its certificate
// ends.
func end(r *certificatesv1.CertificateSigningRequest) time.Time {
	end := r.CreationTimestamp.Add(pendingLife)
	for _, c := range r.Status.Conditions {
		switch c.Type {
		case certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
			if answered := c.LastUpdateTime.Add(answeredLife); answered.Before(end) {
				end = answered
			}
		}
	}
	if block, _ := pem.Decode(r.Status.Certificate); block != nil {
		if certificate, err := x509.ParseCertificate(block.Bytes); err == nil && certificate.NotAfter.Before(end) {
			end = certificate.NotAfter
		}
	}
	return end
}
