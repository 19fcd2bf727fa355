package tainteviction

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDeadline(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 0)
	unreachable := corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute}
	maintenance := corev1.Taint{Key: "maintenance", Effect: corev1.TaintEffectNoExecute}
	tolerate := func(key string, seconds int64) corev1.Toleration {
		t := corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}
		if seconds >= 0 {
			t.TolerationSeconds = &seconds
		}
		return t
	}
	for name, tc := range map[string]struct {
		tolerations []corev1.Toleration
		taints      []corev1.Taint
		arrived     time.Duration // relative to the taint
		want        time.Duration
		stays       bool
	}{
		"without taints it stays":                         {nil, nil, 0, 0, true},
		"what is not tolerated drives away at once":       {nil, []corev1.Taint{unreachable}, -time.Hour, 0, false},
		"tolerated for ever":                              {[]corev1.Toleration{tolerate(unreachable.Key, -1)}, []corev1.Taint{unreachable}, -time.Hour, 0, true},
		"tolerated for a while after the taint came":      {[]corev1.Toleration{tolerate(unreachable.Key, 15)}, []corev1.Taint{unreachable}, -time.Hour, 15 * time.Second, false},
		"the shortest toleration counts":                  {[]corev1.Toleration{tolerate(unreachable.Key, 300), tolerate(maintenance.Key, 15)}, []corev1.Taint{unreachable, maintenance}, -time.Hour, 15 * time.Second, false},
		"one that is not tolerated outdoes the other":     {[]corev1.Toleration{tolerate(unreachable.Key, 300)}, []corev1.Taint{unreachable, maintenance}, -time.Hour, 0, false},
		"a pod that came later has its time from then":    {[]corev1.Toleration{tolerate(unreachable.Key, 15)}, []corev1.Taint{unreachable}, time.Minute, 75 * time.Second, false},
		"a negative toleration means at once":             {[]corev1.Toleration{{Operator: corev1.TolerationOpExists, TolerationSeconds: new(int64)}}, []corev1.Taint{unreachable}, -time.Hour, 0, false},
		"a daemon's toleration of everything is for ever": {[]corev1.Toleration{{Operator: corev1.TolerationOpExists}}, []corev1.Taint{unreachable, maintenance}, -time.Hour, 0, true},
		"a toleration of another effect does not help it": {[]corev1.Toleration{{Key: maintenance.Key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}, []corev1.Taint{maintenance}, -time.Hour, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(start.Add(tc.arrived))},
				Spec:       corev1.PodSpec{Tolerations: tc.tolerations},
			}
			at, due := deadline(pod, tc.taints, func(corev1.Taint) time.Time { return start })
			if due == tc.stays || (due && !at.Equal(start.Add(tc.want))) {
				t.Fatalf("due %v at %s, want %s", due, at.Sub(start), tc.want)
			}
		})
	}
}

func TestATaintCountsFromTheControllersBeginningAtTheEarliest(t *testing.T) {
	t.Parallel()
	begin := time.Unix(100_000, 0)
	c := &Controller{begin: begin, now: func() time.Time { return begin.Add(time.Hour) }, noticed: map[taintID]time.Time{}}
	for name, tc := range map[string]struct {
		added *metav1.Time
		want  time.Time
	}{
		"added before the control plane was away": {&metav1.Time{Time: begin.Add(-time.Hour)}, begin},
		"added since":                           {&metav1.Time{Time: begin.Add(time.Minute)}, begin.Add(time.Minute)},
		"nobody knows when, and nobody noticed": {nil, begin.Add(time.Hour)},
	} {
		if got := c.since("a", corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute, TimeAdded: tc.added}); !got.Equal(tc.want) {
			t.Errorf("%s: since %s, want %s", name, got, tc.want)
		}
	}
}
