package csrcleaner

import (
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestARequestGoesWhenItsTimeIsUp(t *testing.T) {
	t.Parallel()
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		answered certificatesv1.RequestConditionType
		after    time.Duration // of the answer
		want     time.Duration // after it was made
	}{
		"nobody answers":                     {want: 24 * time.Hour},
		"approved":                           {certificatesv1.CertificateApproved, 2 * time.Hour, 3 * time.Hour},
		"denied":                             {certificatesv1.CertificateDenied, time.Minute, time.Hour + time.Minute},
		"failed":                             {certificatesv1.CertificateFailed, 0, time.Hour},
		"another condition is no answer":     {"Looked", 0, 24 * time.Hour},
		"an answer the next day is too late": {certificatesv1.CertificateApproved, 25 * time.Hour, 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(made)}}
			if tc.answered != "" {
				r.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: tc.answered, LastUpdateTime: metav1.NewTime(made.Add(tc.after))}}
			}
			if got := end(r).Sub(made); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}
