package tainteviction

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
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
			pod := &corev1.Pod{Spec: corev1.PodSpec{Tolerations: tc.tolerations}}
			at, due := deadline(pod, start.Add(tc.arrived), tc.taints, func(corev1.Taint) time.Time { return start })
			if due == tc.stays || (due && !at.Equal(start.Add(tc.want))) {
				t.Fatalf("due %v at %s, want %s", due, at.Sub(start), tc.want)
			}
		})
	}
}

func TestTimesCountByThisProcessesClockWhateverOthersWrote(t *testing.T) {
	t.Parallel()
	now := time.Unix(100_000, 0)
	c := &Controller{now: func() time.Time { return now }, noticed: map[taintID]time.Time{}, doomed: map[reconcile.Key]doom{}}
	taint := func(added time.Duration) corev1.Taint {
		return corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute, TimeAdded: &metav1.Time{Time: now.Add(added)}}
	}
	ahead, behind, unsaid := taint(time.Hour), taint(-time.Hour), corev1.Taint{Key: "maintenance", Effect: corev1.TaintEffectNoExecute}
	noticed := now
	c.notice("a", []corev1.Taint{ahead, unsaid})
	c.notice("b", []corev1.Taint{behind})
	now = now.Add(time.Minute)
	c.notice("a", []corev1.Taint{ahead, unsaid})
	for node, one := range map[string]corev1.Taint{"a": ahead, "b": behind} {
		if got := c.since(node, one); !got.Equal(noticed) {
			t.Errorf("a taint of node %s counts since %s, want %s", node, got, noticed)
		}
	}
	if got := c.since("a", unsaid); !got.Equal(noticed) {
		t.Errorf("a taint without a time counts since %s, want %s", got, noticed)
	}
	again := taint(-time.Second)
	c.notice("a", []corev1.Taint{again})
	if got := c.since("a", again); !got.Equal(now) {
		t.Errorf("a taint that was added anew counts since %s, want %s", got, now)
	}
	pod := &corev1.Pod{}
	pod.Name, pod.UID = "web", "1"
	c.doomed[reconcile.KeyOf(pod)] = doom{pod.UID, noticed}
	if got := c.came(reconcile.KeyOf(pod), pod); !got.Equal(noticed) {
		t.Errorf("the pod counts since %s, want %s", got, noticed)
	}
	pod.UID = "2"
	if got := c.came(reconcile.KeyOf(pod), pod); !got.Equal(now) {
		t.Errorf("another pod of that name counts since %s, want %s", got, now)
	}
}
