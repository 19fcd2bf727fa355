package admission

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-run/skiff/internal/pki"
)

// The three plugins of Kubernetes about certificate signing requests: who may
// approve for a signer, who may sign in its name, and what nobody may ask for.
type (
	certificateApproval struct {
		operations
		authorizer authorizer.Authorizer
	}
	certificateSigning struct {
		operations
		authorizer authorizer.Authorizer
	}
	certificateSubjectRestriction struct{ operations }
)

func isCertificateRequest(a admission.Attributes, subresource string) bool {
	return a.GetResource().GroupResource() == certificatesv1.Resource("certificatesigningrequests") && a.GetSubresource() == subresource
}

// Validate implements admission.ValidationInterface.
func (p certificateApproval) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !isCertificateRequest(a, "approval") {
		return nil
	}
	// The signer's name never changes, so it is taken from what is stored.
	r, ok := a.GetOldObject().(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return forbidden(a, "unexpected type %T", a.GetOldObject())
	}
	if !mayAct(ctx, p.authorizer, a.GetUserInfo(), "approve", r.Spec.SignerName) {
		return forbidden(a, "user not permitted to approve requests with signerName %q", r.Spec.SignerName)
	}
	return nil
}

// Validate implements admission.ValidationInterface.
func (p certificateSigning) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !isCertificateRequest(a, "status") {
		return nil
	}
	old, ok := a.GetOldObject().(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return forbidden(a, "unexpected type %T", a.GetOldObject())
	}
	r, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return forbidden(a, "unexpected type %T", a.GetObject())
	}
	// Only an answer of the signer needs its permission.
	if reflect.DeepEqual(old.Status.Certificate, r.Status.Certificate) && reflect.DeepEqual(failures(old), failures(r)) {
		return nil
	}
	if !mayAct(ctx, p.authorizer, a.GetUserInfo(), "sign", old.Spec.SignerName) {
		return forbidden(a, "user not permitted to sign requests with signerName %q", old.Spec.SignerName)
	}
	return nil
}

func failures(r *certificatesv1.CertificateSigningRequest) []certificatesv1.CertificateSigningRequestCondition {
	var found []certificatesv1.CertificateSigningRequestCondition
	for _, c := range r.Status.Conditions {
		if c.Type == certificatesv1.CertificateFailed {
			found = append(found, c)
		}
	}
	return found
}

// Validate implements admission.ValidationInterface.
func (certificateSubjectRestriction) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !isCertificateRequest(a, "") {
		return nil
	}
	r, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return forbidden(a, "unexpected type %T", a.GetObject())
	}
	if r.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return nil
	}
	parsed, err := pki.ParseRequest(r.Spec.Request)
	if err != nil {
		return forbidden(a, "failed to parse CSR: %v", err)
	}
	// The privileged group is beyond authorization and cannot be taken back.
	if slices.Contains(parsed.Subject.Organization, user.SystemPrivilegedGroup) {
		return forbidden(a, "use of %s signer with %s group is not allowed", r.Spec.SignerName, user.SystemPrivilegedGroup)
	}
	return nil
}

// mayAct says whether the user may do the verb for the signer, by its name or
// for all signers of its domain.
func mayAct(ctx context.Context, a authorizer.Authorizer, who user.Info, verb, signer string) bool {
	domain, _, _ := strings.Cut(signer, "/")
	for _, name := range []string{signer, domain + "/*"} {
		decision, _, err := a.Authorize(ctx, authorizer.AttributesRecord{
			User: who, Verb: verb, Name: name, APIGroup: certificatesv1.GroupName, APIVersion: "*", Resource: "signers", ResourceRequest: true,
		})
		if err == nil && decision == authorizer.DecisionAllow {
			return true
		}
	}
	return false
}

// nodeRequest lets a node ask only for certificates of its own.
func nodeRequest(name string, a admission.Attributes) error {
	r, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
	if a.GetOperation() != admission.Create || a.GetSubresource() != "" || !ok {
		return nil
	}
	if r.Spec.SignerName != certificatesv1.KubeletServingSignerName && r.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return nil
	}
	parsed, err := pki.ParseRequest(r.Spec.Request)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("unable to parse csr: %w", err))
	}
	if own := "system:node:" + name; parsed.Subject.CommonName != own {
		return forbidden(a, "can only create a node CSR with CN=%s", own)
	}
	return nil
}
