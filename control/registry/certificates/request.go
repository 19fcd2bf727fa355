package certificates

import (
	"context"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/skiff-run/skiff/control/registry"
)

// request is what this package is about.
type request = certificatesv1.CertificateSigningRequest

// requestKind serves CertificateSigningRequests.
func requestKind() registry.Kind[*request] {
	doc, status := certificatesv1.CertificateSigningRequestSpec{}.SwaggerDoc(), certificatesv1.CertificateSigningRequestStatus{}.SwaggerDoc()
	return registry.Kind[*request]{
		Version: certificatesv1.SchemeGroupVersion, Plural: "certificatesigningrequests", Singular: "certificatesigningrequest",
		ShortNames: []string{"csr"}, ClusterScoped: true,
		New:     func() *request { return &request{} },
		NewList: func() runtime.Object { return &certificatesv1.CertificateSigningRequestList{} },
		Default: func(r *request) {
			if r.Spec.Usages == nil {
				r.Spec.Usages = []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment}
			}
		},
		Spec:   func(r *request) any { return &r.Spec },
		Status: func(r *request) any { return &r.Status },
		// Any name will do, as in Kubernetes.
		ValidateName:     func(string, bool) []string { return nil },
		PrepareForCreate: setRequestor,
		// What was asked for, and by whom, is what is approved: it never changes.
		PrepareForUpdate: func(_ context.Context, r, old *request) { r.Spec = old.Spec },
		Validate:         func(_ context.Context, r *request) field.ErrorList { return validateRequest(r) },
		ValidateUpdate: func(_ context.Context, r, old *request) field.ErrorList {
			return validateChange(r, old, changes{})
		},
		PrepareStatus: func(_ context.Context, r, old *request) { setTimes(r, old, metav1.Now()) },
		ValidateStatus: func(_ context.Context, r, old *request) field.ErrorList {
			return append(validateRequest(r), validateChange(r, old, changes{certificate: true})...)
		},
		Fields: func(r *request) fields.Set { return fields.Set{"spec.signerName": r.Spec.SignerName} },
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(), registry.AgeColumn(),
			registry.Column("SignerName", "string", doc["signerName"]),
			registry.Column("Requestor", "string", doc["request"]),
			registry.Column("RequestedDuration", "string", doc["expirationSeconds"]),
			registry.Column("Condition", "string", status["conditions"]),
		},
		Row: func(r *request) []any {
			signer, life := r.Spec.SignerName, "<none>"
			if signer == "" {
				signer = "<none>"
			}
			if r.Spec.ExpirationSeconds != nil {
				life = duration.HumanDuration(time.Duration(*r.Spec.ExpirationSeconds) * time.Second)
			}
			return []any{r.Name, registry.Age(r.CreationTimestamp), signer, r.Spec.Username, life, condition(r)}
		},
	}
}

// setRequestor writes down who asks, whatever the object claims.
func setRequestor(ctx context.Context, r *request) {
	r.Spec.Username, r.Spec.UID, r.Spec.Groups, r.Spec.Extra = "", "", nil, nil
	who, ok := genericapirequest.UserFrom(ctx)
	if !ok {
		return
	}
	r.Spec.Username, r.Spec.UID, r.Spec.Groups = who.GetName(), who.GetUID(), slices.Clone(who.GetGroups())
	for key, values := range who.GetExtra() {
		if r.Spec.Extra == nil {
			r.Spec.Extra = map[string]certificatesv1.ExtraValue{}
		}
		r.Spec.Extra[key] = slices.Clone(values)
	}
}

// setTimes completes the times of conditions.
func setTimes(r, old *request, now metav1.Time) {
	for i := range r.Status.Conditions {
		c := &r.Status.Conditions[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = now
		}
		if !c.LastTransitionTime.IsZero() {
			continue
		}
		c.LastTransitionTime = now
		for _, before := range old.Status.Conditions {
			if before.Type == c.Type && before.Status == c.Status && !before.LastTransitionTime.IsZero() {
				c.LastTransitionTime = before.LastTransitionTime
				break
			}
		}
	}
}

// condition is the last column that kubectl prints.
func condition(r *request) string {
	has := func(kind certificatesv1.RequestConditionType) bool {
		return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == kind })
	}
	text := "Pending"
	if has(certificatesv1.CertificateDenied) {
		text = "Denied"
	} else if has(certificatesv1.CertificateApproved) {
		text = "Approved"
	}
	if has(certificatesv1.CertificateFailed) {
		text += ",Failed"
	}
	if len(r.Status.Certificate) > 0 {
		text += ",Issued"
	}
	return text
}

// approvalStrategy updates a request through its subresource approval, by which
// conditions change and nothing else.
type approvalStrategy struct{ rest.RESTUpdateStrategy }

// PrepareForUpdate implements rest.RESTUpdateStrategy.
func (approvalStrategy) PrepareForUpdate(_ context.Context, object, old runtime.Object) {
	r, before := object.(*request), old.(*request)
	setTimes(r, before, metav1.Now())
	conditions := r.Status.Conditions
	r.Spec, r.Status = before.Spec, before.Status
	r.Status.Conditions = conditions
}

// ValidateUpdate implements rest.RESTUpdateStrategy.
func (approvalStrategy) ValidateUpdate(_ context.Context, object, old runtime.Object) field.ErrorList {
	r, before := object.(*request), old.(*request)
	return append(validateRequest(r), validateChange(r, before, changes{approval: true})...)
}

// WarningsOnUpdate implements rest.RESTUpdateStrategy.
func (approvalStrategy) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}

// GetResetFields implements rest.ResetFieldsStrategy.
func (approvalStrategy) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return map[fieldpath.APIVersion]*fieldpath.Set{"certificates.k8s.io/v1": fieldpath.NewSet(
		fieldpath.MakePathOrDie("spec"), fieldpath.MakePathOrDie("status", "certificate"))}
}
