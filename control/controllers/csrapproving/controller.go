// Package csrapproving approves the certificate signing requests of the
// cluster's own machines: kube-controller-manager's csrapproving controller for
// agents' client certificates, and beyond it the certificates of agents' own
// endpoints and of proxies.
//
// Client certificates are approved when the requestor may create the
// subresource that stands for their kind, as a SubjectAccessReview says. A
// serving certificate is approved when it names only the requesting node and
// addresses that are this node's and nobody else's. Everything else waits for
// a person.
package csrapproving

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	certificateslisters "k8s.io/client-go/listers/certificates/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/skiff-run/skiff/control/controllers/internal/csrkind"
	"github.com/skiff-run/skiff/control/controllers/reconcile"
	"github.com/skiff-run/skiff/internal/pki"
)

// again is when a request that cannot be approved yet is looked at once more: a
// new node's addresses come after its first request.
const again = 2 * time.Second

// patience is how long it is looked at; then it is left to a person.
const patience = 10 * time.Minute

// Controller approves requests.
type Controller struct {
	client   kubernetes.Interface
	requests certificateslisters.CertificateSigningRequestLister
	machines machines
	sources  []reconcile.Source
	queue    *reconcile.Queue[string]
	logger   *slog.Logger
}

// New returns a controller on the client and the informers, which the caller
// starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) *Controller {
	requests := factory.Certificates().V1().CertificateSigningRequests()
	nodes, services, slices := factory.Core().V1().Nodes(), factory.Core().V1().Services(), factory.Discovery().V1().EndpointSlices()
	c := &Controller{
		client: client, requests: requests.Lister(), machines: machines{nodes.Lister(), services.Lister(), slices.Lister()}, logger: logger,
	}
	c.queue = reconcile.NewQueue("csrapproving", 1, logger, c.reconcile)
	c.sources = []reconcile.Source{
		{Informer: requests.Informer(), Handler: reconcile.OnAny(func(r *certificatesv1.CertificateSigningRequest) { c.queue.Add(r.Name) })},
		// Only read; a handler that does nothing makes their first state be waited for.
		{Informer: nodes.Informer(), Handler: cache.ResourceEventHandlerFuncs{}},
		{Informer: services.Informer(), Handler: cache.ResourceEventHandlerFuncs{}},
		{Informer: slices.Informer(), Handler: cache.ResourceEventHandlerFuncs{}},
	}
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
	if len(r.Status.Certificate) > 0 || csrkind.Has(r, certificatesv1.CertificateApproved) || csrkind.Has(r, certificatesv1.CertificateDenied) {
		return nil
	}
	request, err := pki.ParseRequest(r.Spec.Request)
	if err != nil {
		return nil // The API server refuses such; nothing to approve.
	}
	message, why, err := c.judge(ctx, r, request)
	if err != nil {
		return err
	}
	if message == "" {
		if why != "" && time.Since(r.CreationTimestamp.Time) < patience {
			c.logger.Debug("a certificate signing request is not approved", "name", name, "requestor", r.Spec.Username, "reason", why)
			c.queue.AddAfter(name, again)
		} else if why != "" {
			c.logger.Warn("a certificate signing request is left to a person: kubectl certificate approve or deny", "name", name, "requestor", r.Spec.Username, "reason", why)
		}
		return nil
	}
	changed := r.DeepCopy()
	changed.Status.Conditions = append(changed.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "AutoApproved", Message: message,
	})
	if _, err := c.client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, name, changed, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("approve certificate signing request: %w", err)
	}
	return nil
}

// kind is a kind of client certificate that is approved to whoever may create
// its subresource.
type kind struct {
	signer      string
	check       func(*x509.CertificateRequest, []certificatesv1.KeyUsage) error
	subresource string
	// own: only for the requestor's own name, that is a renewal.
	own     bool
	message string
}

var kinds = []kind{
	{certificatesv1.KubeAPIServerClientKubeletSignerName, csrkind.KubeletClient, "selfnodeclient", true, "Auto approving self kubelet client certificate after SubjectAccessReview."},
	{certificatesv1.KubeAPIServerClientKubeletSignerName, csrkind.KubeletClient, "nodeclient", false, "Auto approving kubelet client certificate after SubjectAccessReview."},
	{csrkind.ProxySigner, csrkind.Proxy, "selfproxyclient", true, "Auto approving self proxy client certificate after SubjectAccessReview."},
	{csrkind.ProxySigner, csrkind.Proxy, "proxyclient", false, "Auto approving proxy client certificate after SubjectAccessReview."},
}

// judge returns the message to approve the request with, or why not yet; both
// are empty for what is not ours to judge.
func (c *Controller) judge(ctx context.Context, r *certificatesv1.CertificateSigningRequest, request *x509.CertificateRequest) (message, why string, err error) {
	if r.Spec.SignerName == certificatesv1.KubeletServingSignerName {
		if err := csrkind.KubeletServing(request, r.Spec.Usages); err != nil {
			return "", "", nil
		}
		if why, err := c.machines.refuse(r, request); why != "" || err != nil {
			return "", why, err
		}
		return "Auto approving kubelet serving certificate for the node's own name and addresses.", "", nil
	}
	for _, k := range kinds {
		if r.Spec.SignerName != k.signer || k.check(request, r.Spec.Usages) != nil || (k.own && r.Spec.Username != request.Subject.CommonName) {
			continue
		}
		allowed, err := c.may(ctx, r, k.subresource)
		if err != nil {
			return "", "", err
		}
		if allowed {
			return k.message, "", nil
		}
		why = fmt.Sprintf("%s may not create certificatesigningrequests/%s", r.Spec.Username, k.subresource)
	}
	return "", why, nil
}

func (c *Controller) may(ctx context.Context, r *certificatesv1.CertificateSigningRequest, subresource string) (bool, error) {
	extra := map[string]authorizationv1.ExtraValue{}
	for key, values := range r.Spec.Extra {
		extra[key] = authorizationv1.ExtraValue(values)
	}
	review, err := c.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: r.Spec.Username, UID: r.Spec.UID, Groups: r.Spec.Groups, Extra: extra,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: "create", Group: certificatesv1.GroupName, Version: "*", Resource: "certificatesigningrequests", Subresource: subresource,
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("ask whether %s may get its certificate: %w", r.Spec.Username, err)
	}
	return review.Status.Allowed, nil
}
