// Package csrsigning signs approved certificate signing requests with the
// cluster's authority: kube-controller-manager's csrsigning controllers, and
// the signer of skiff-proxy's certificates. In flow requests by informer, out
// flow their certificates, or the condition Failed with the reason.
package csrsigning

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	certificateslisters "k8s.io/client-go/listers/certificates/v1"

	"github.com/skiff-run/skiff/control/controllers/internal/csrkind"
	"github.com/skiff-run/skiff/control/controllers/reconcile"
	"github.com/skiff-run/skiff/internal/pki"
)

const (
	// longestLife is that of certificates which ask for none, or for more.
	longestLife = 365 * 24 * time.Hour
	// shortestLife is that of certificates which ask for less.
	shortestLife = 10 * time.Minute
	// leastBackdate is how far another machine's clock may be behind ours.
	leastBackdate = 5 * time.Minute
)

// backdate is how long before now a certificate that is valid for life begins: an
// hour for one of a day and more, so that a machine whose clock is that far
// behind can still talk to the others. A shorter one would count as due for
// renewal at once.
func backdate(life time.Duration) time.Duration {
	return min(max(life/24, leastBackdate), pki.ClockSkew)
}

// Controller signs requests.
type Controller struct {
	client    kubernetes.Interface
	requests  certificateslisters.CertificateSigningRequestLister
	authority func() (*pki.Authority, error)
	sources   []reconcile.Source
	queue     *reconcile.Queue[string]
	logger    *slog.Logger
}

// New returns a controller on the client and the informers, which the caller
// starts. authority is asked for each certificate, so that a replaced one is
// used at once.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, authority func() (*pki.Authority, error), logger *slog.Logger) *Controller {
	requests := factory.Certificates().V1().CertificateSigningRequests()
	c := &Controller{client: client, requests: requests.Lister(), authority: authority, logger: logger}
	c.queue = reconcile.NewQueue("csrsigning", 1, logger, c.reconcile)
	c.sources = []reconcile.Source{{
		Informer: requests.Informer(),
		Handler:  reconcile.OnAny(func(r *certificatesv1.CertificateSigningRequest) { c.queue.Add(r.Name) }),
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
	check, ours := csrkind.Signers[r.Spec.SignerName]
	if !ours || len(r.Status.Certificate) > 0 || !csrkind.Has(r, certificatesv1.CertificateApproved) ||
		csrkind.Has(r, certificatesv1.CertificateDenied) || csrkind.Has(r, certificatesv1.CertificateFailed) {
		return nil
	}
	changed := r.DeepCopy()
	if changed.Status.Certificate, err = c.sign(r, check); err != nil {
		var refused refusal
		if !errors.As(err, &refused) {
			return err
		}
		changed.Status.Conditions = append(changed.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
			Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: "SignerValidationFailure",
			Message: refused.Error(), LastUpdateTime: metav1.Now(),
		})
	}
	if _, err := c.client.CertificatesV1().CertificateSigningRequests().UpdateStatus(ctx, changed, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("answer certificate signing request: %w", err)
	}
	c.logger.Info("certificate signing request answered", "name", name, "signer", r.Spec.SignerName, "requestor", r.Spec.Username, "signed", len(changed.Status.Certificate) > 0)
	return nil
}

// refusal is a request that the signer will never sign.
type refusal struct{ error }

func (c *Controller) sign(r *certificatesv1.CertificateSigningRequest, check func(*x509.CertificateRequest, []certificatesv1.KeyUsage) error) ([]byte, error) {
	request, err := pki.ParseRequest(r.Spec.Request)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		return nil, refusal{fmt.Errorf("unable to parse csr %q: %w", r.Name, err)}
	}
	if err := check(request, r.Spec.Usages); err != nil {
		return nil, refusal{err}
	}
	authority, err := c.authority()
	if err != nil {
		return nil, fmt.Errorf("sign for %s: %w", r.Spec.Username, err)
	}
	now, valid := time.Now(), life(r.Spec.ExpirationSeconds)
	template := &x509.Certificate{
		Subject: request.Subject, DNSNames: request.DNSNames, IPAddresses: request.IPAddresses,
		EmailAddresses: request.EmailAddresses, URIs: request.URIs,
		NotBefore: now.Add(-backdate(valid)), NotAfter: now.Add(valid), BasicConstraintsValid: true,
	}
	for _, usage := range r.Spec.Usages {
		switch usage {
		case certificatesv1.UsageDigitalSignature:
			template.KeyUsage |= x509.KeyUsageDigitalSignature
		case certificatesv1.UsageKeyEncipherment:
			template.KeyUsage |= x509.KeyUsageKeyEncipherment
		case certificatesv1.UsageServerAuth:
			template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		case certificatesv1.UsageClientAuth:
			template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
		}
	}
	certificate, err := authority.SignTemplate(template, request.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("sign for %s: %w", r.Spec.Username, err)
	}
	return certificate, nil
}

// life is how long a certificate is valid that asks for so many seconds.
func life(seconds *int32) time.Duration {
	if seconds == nil {
		return longestLife
	}
	return min(max(time.Duration(*seconds)*time.Second, shortestLife), longestLife)
}
