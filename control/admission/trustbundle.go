package admission

import (
	"context"

	certificatesv1 "k8s.io/api/certificates/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// trustBundleAttest lets only those publish a signer's authorities who may attest for
// the signer (Kubernetes' ClusterTrustBundleAttest).
type trustBundleAttest struct {
	operations
	authorizer authorizer.Authorizer
}

// Validate implements admission.ValidationInterface.
func (p trustBundleAttest) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	bundle, ok := a.GetObject().(*certificatesv1.ClusterTrustBundle)
	if !ok || !concerns(a, certificatesv1.GroupName, "clustertrustbundles") || bundle.Spec.SignerName == "" {
		return nil
	}
	// Finalizers and owners are the business of the garbage collector.
	if old, had := a.GetOldObject().(*certificatesv1.ClusterTrustBundle); had && apiequality.Semantic.DeepEqual(bundle.Spec, old.Spec) &&
		apiequality.Semantic.DeepEqual(bundle.Labels, old.Labels) && apiequality.Semantic.DeepEqual(bundle.Annotations, old.Annotations) {
		return nil
	}
	if !mayAct(ctx, p.authorizer, a.GetUserInfo(), "attest", bundle.Spec.SignerName) {
		return forbidden(a, "user not permitted to attest for signerName %q", bundle.Spec.SignerName)
	}
	return nil
}
