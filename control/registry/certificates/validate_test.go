package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

func requestPEM(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "jane"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func messages(errs field.ErrorList) []string {
	var out []string
	for _, err := range errs {
		out = append(out, err.Error())
	}
	return out
}

func is(kinds ...certificatesv1.RequestConditionType) []certificatesv1.CertificateSigningRequestCondition {
	var out []certificatesv1.CertificateSigningRequestCondition
	for _, kind := range kinds {
		out = append(out, certificatesv1.CertificateSigningRequestCondition{Type: kind, Status: corev1.ConditionTrue})
	}
	return out
}

func TestValidationOfRequests(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		edit func(*request)
		want []string
	}{
		"a good one":                {func(*request) {}, nil},
		"no PEM":                    {func(r *request) { r.Spec.Request = []byte("x") }, []string{`spec.request: Invalid value: "eA==": PEM block type must be CERTIFICATE REQUEST`}},
		"no usage":                  {func(r *request) { r.Spec.Usages = nil }, []string{"spec.usages: Required value"}},
		"a usage twice":             {func(r *request) { r.Spec.Usages = append(r.Spec.Usages, r.Spec.Usages[0]) }, []string{`spec.usages[1]: Duplicate value: "client auth"`}},
		"the legacy signer":         {func(r *request) { r.Spec.SignerName = legacySigner }, []string{`spec.signerName: Invalid value: "kubernetes.io/legacy-unknown": the legacy signerName is not allowed via this API version`}},
		"no signer":                 {func(r *request) { r.Spec.SignerName = "" }, []string{"spec.signerName: Required value"}},
		"a signer without a path":   {func(r *request) { r.Spec.SignerName = "example.com" }, []string{`spec.signerName: Invalid value: "example.com": must be a fully qualified domain and path of the form 'example.com/signer-name'`}},
		"a signer without a domain": {func(r *request) { r.Spec.SignerName = "example/x" }, []string{`spec.signerName: Invalid value: "example": should be a domain with at least two segments separated by dots`}},
		"too short a life":          {func(r *request) { r.Spec.ExpirationSeconds = ptr.To[int32](599) }, []string{"spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)"}},
		"approved and denied":       {func(r *request) { r.Status.Conditions = is("Approved", "Denied") }, []string{`status.conditions[1].type: Invalid value: "Denied": Approved and Denied conditions are mutually exclusive`}},
		"approved twice":            {func(r *request) { r.Status.Conditions = is("Approved", "Approved") }, []string{`status.conditions[1].type: Duplicate value: "Approved"`}},
		"not approved": {func(r *request) {
			r.Status.Conditions = is("Approved")
			r.Status.Conditions[0].Status = corev1.ConditionFalse
		}, []string{`status.conditions[0].status: Unsupported value: "False": supported values: "True"`}},
		"no certificate": {func(r *request) { r.Status.Certificate = []byte("x") }, []string{`status.certificate: Invalid value: "<certificate data>": must contain at least one CERTIFICATE PEM block`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &request{ObjectMeta: metav1.ObjectMeta{Name: "jane"}, Spec: certificatesv1.CertificateSigningRequestSpec{
				Request: requestPEM(t), SignerName: certificatesv1.KubeAPIServerClientSignerName, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
			}}
			tc.edit(r)
			if diff := cmp.Diff(tc.want, messages(validateRequest(r))); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatEachPathMayChange(t *testing.T) {
	t.Parallel()
	approved, failed := is("Approved"), is("Approved", "Failed")
	for name, tc := range map[string]struct {
		old, now certificatesv1.CertificateSigningRequestStatus
		may      changes
		want     []string
	}{
		"the object approves":    {now: certificatesv1.CertificateSigningRequestStatus{Conditions: approved}, want: []string{`status.conditions: Forbidden: updates may not add a condition of type "Approved"`}},
		"approval approves":      {now: certificatesv1.CertificateSigningRequestStatus{Conditions: approved}, may: changes{approval: true}},
		"approval is taken back": {old: certificatesv1.CertificateSigningRequestStatus{Conditions: approved}, may: changes{approval: true}, want: []string{`status.conditions: Forbidden: updates may not remove a condition of type "Approved"`}},
		"the signer fails":       {old: certificatesv1.CertificateSigningRequestStatus{Conditions: approved}, now: certificatesv1.CertificateSigningRequestStatus{Conditions: failed}, may: changes{certificate: true}},
		"the signer signs":       {now: certificatesv1.CertificateSigningRequestStatus{Certificate: []byte("a")}, may: changes{certificate: true}},
		"approval signs":         {now: certificatesv1.CertificateSigningRequestStatus{Certificate: []byte("a")}, may: changes{approval: true}, want: []string{"status.certificate: Forbidden: updates may not set certificate content"}},
		"the signer signs again": {old: certificatesv1.CertificateSigningRequestStatus{Certificate: []byte("a")}, now: certificatesv1.CertificateSigningRequestStatus{Certificate: []byte("b")}, may: changes{certificate: true}, want: []string{"status.certificate: Forbidden: updates may not modify existing certificate content"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			meta := metav1.ObjectMeta{Name: "jane", ResourceVersion: "1"}
			if diff := cmp.Diff(tc.want, messages(validateChange(&request{ObjectMeta: meta, Status: tc.now}, &request{ObjectMeta: meta, Status: tc.old}, tc.may))); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTimesOfConditionsAreKeptAndCompleted(t *testing.T) {
	t.Parallel()
	before, now := metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), metav1.NewTime(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
	old, r := &request{}, &request{}
	old.Status.Conditions = is("Approved")
	old.Status.Conditions[0].LastTransitionTime = before
	r.Status.Conditions = is("Approved", "Failed")
	setTimes(r, old, now)
	if c := r.Status.Conditions; !c[0].LastTransitionTime.Equal(&before) || !c[0].LastUpdateTime.Equal(&now) || !c[1].LastTransitionTime.Equal(&now) {
		t.Errorf("got %+v", c)
	}
}
