package podgc

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSurplus(t *testing.T) {
	t.Parallel()
	pod := func(name string, second int64, phase corev1.PodPhase, reason string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.Unix(second, 0)},
			Status:     corev1.PodStatus{Phase: phase, Reason: reason},
		}
	}
	pods := []*corev1.Pod{
		pod("young", 9, corev1.PodSucceeded, ""), pod("old", 1, corev1.PodFailed, ""), pod("running", 0, corev1.PodRunning, ""),
		pod("evicted", 5, corev1.PodFailed, "Evicted"),
	}
	for name, tc := range map[string]struct {
		threshold int
		want      []string
	}{
		"as many as are kept":              {3, nil},
		"evicted ones go first":            {2, []string{"evicted"}},
		"then the oldest":                  {1, []string{"evicted", "old"}},
		"without a threshold all are kept": {-1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := surplus(pods, tc.threshold)
			if len(got) != len(tc.want) {
				t.Fatalf("%d pods go, want %v", len(got), tc.want)
			}
			for i := range got {
				if got[i].Name != tc.want[i] {
					t.Errorf("%s goes, want %s", got[i].Name, tc.want[i])
				}
			}
		})
	}
}
