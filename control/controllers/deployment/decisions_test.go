package deployment

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// web returns a rolling Deployment with that size.
func web(replicas int32, surge, unavailable string) *appsv1.Deployment {
	parse := func(text string) *intstr.IntOrString { value := intstr.Parse(text); return &value }
	deadline := int32(600)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", UID: "web-uid", Generation: 1},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, ProgressDeadlineSeconds: &deadline,
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: parse(surge), MaxUnavailable: parse(unavailable)},
			},
		},
	}
}

// set returns a ReplicaSet; the older, the smaller its number.
func set(number int, replicas, available int32) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("set-", number), CreationTimestamp: metav1.Unix(int64(number), 0)},
		Spec:       appsv1.ReplicaSetSpec{Replicas: &replicas},
		Status:     appsv1.ReplicaSetStatus{Replicas: replicas, AvailableReplicas: available},
	}
}

func sized(s *appsv1.ReplicaSet, d *appsv1.Deployment) *appsv1.ReplicaSet {
	noteSize(d, s)
	return s
}

func sizes(changes []sizeChange) map[string]int32 {
	got := map[string]int32{}
	for _, change := range changes {
		got[change.set.Name] = change.size
	}
	return got
}

func TestNewSetGrowsAsFarAsTheSurgeAllows(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		d      *appsv1.Deployment
		newSet *appsv1.ReplicaSet
		olds   []*appsv1.ReplicaSet
		want   int32
	}{
		"a first rollout takes everything at once":          {web(4, "25%", "25%"), set(1, 0, 0), nil, 4},
		"surge is rounded up":                               {web(5, "25%", "25%"), set(2, 0, 0), []*appsv1.ReplicaSet{set(1, 5, 5)}, 2},
		"no surge means to wait for the old ones":           {web(4, "0", "1"), set(2, 0, 0), []*appsv1.ReplicaSet{set(1, 4, 4)}, 0},
		"it takes the place old ones have made":             {web(4, "1", "1"), set(2, 1, 1), []*appsv1.ReplicaSet{set(1, 3, 3)}, 2},
		"never more than wanted":                            {web(4, "100%", "1"), set(2, 3, 3), []*appsv1.ReplicaSet{set(1, 1, 1)}, 4},
		"a smaller deployment makes it smaller":             {web(2, "1", "1"), set(2, 4, 4), nil, 2},
		"with both fences at zero one may be missing":       {web(1, "0", "1%"), set(2, 0, 0), []*appsv1.ReplicaSet{set(1, 1, 1)}, 0},
		"an old set beyond the surge does not make it less": {web(4, "1", "1"), set(2, 2, 2), []*appsv1.ReplicaSet{set(1, 9, 9)}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := newSetSize(tc.d, append(tc.olds, tc.newSet), tc.newSet); got != tc.want {
				t.Fatalf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func TestOldSetsShrinkAsFarAsAvailabilityAllows(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		d      *appsv1.Deployment
		newSet *appsv1.ReplicaSet
		olds   []*appsv1.ReplicaSet
		want   map[string]int32
	}{
		"maxUnavailable may go before anything new is ready": {web(4, "1", "1"), set(2, 1, 0), []*appsv1.ReplicaSet{set(1, 4, 4)}, map[string]int32{"set-1": 3}},
		"nothing goes while new ones are not ready":          {web(4, "1", "1"), set(2, 2, 0), []*appsv1.ReplicaSet{set(1, 3, 3)}, map[string]int32{}},
		"with no unavailability allowed each new one frees an old one": {
			web(4, "1", "0"), set(2, 1, 1), []*appsv1.ReplicaSet{set(1, 4, 4)}, map[string]int32{"set-1": 3},
		},
		"unavailable old ones go first, from the oldest set": {
			web(10, "3", "2"), set(3, 5, 5), []*appsv1.ReplicaSet{set(2, 4, 4), set(1, 4, 1)}, map[string]int32{"set-1": 0, "set-2": 3},
		},
		"a new set that crashes keeps the old ones": {web(10, "3", "2"), set(2, 5, 0), []*appsv1.ReplicaSet{set(1, 8, 7)}, map[string]int32{}},
		"after a rollback the crashing ones are taken down": {
			web(10, "3", "2"), set(1, 8, 7), []*appsv1.ReplicaSet{set(2, 5, 0)}, map[string]int32{"set-2": 1},
		},
		"a set whose status lags behind its size is waited for": {web(4, "1", "1"), set(2, 2, 2), []*appsv1.ReplicaSet{set(1, 3, 4)}, map[string]int32{}},
		"the last old ones go when all new ones are there":      {web(4, "1", "1"), set(2, 4, 4), []*appsv1.ReplicaSet{set(1, 1, 1)}, map[string]int32{"set-1": 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, sizes(oldSetSizes(tc.d, tc.newSet, tc.olds))); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestScalingKeepsProportions(t *testing.T) {
	t.Parallel()
	from10 := web(10, "3", "2")
	for name, tc := range map[string]struct {
		d      *appsv1.Deployment
		newSet *appsv1.ReplicaSet
		olds   []*appsv1.ReplicaSet
		want   map[string]int32
	}{
		"one active set takes it all":            {web(8, "1", "1"), set(2, 4, 4), []*appsv1.ReplicaSet{set(1, 0, 0)}, map[string]int32{"set-2": 8}},
		"with none active the new one takes it":  {web(8, "1", "1"), set(2, 0, 0), []*appsv1.ReplicaSet{set(1, 0, 0)}, map[string]int32{"set-2": 8}},
		"without a new one the latest takes it":  {web(8, "1", "1"), nil, []*appsv1.ReplicaSet{set(1, 0, 0), set(2, 0, 0)}, map[string]int32{"set-2": 8}},
		"a saturated new set ends the old ones":  {web(4, "1", "1"), sized(set(2, 4, 4), web(4, "1", "1")), []*appsv1.ReplicaSet{set(1, 2, 2)}, map[string]int32{"set-1": 0}},
		"in a rollout each set gets its share":   {web(15, "3", "2"), sized(set(2, 5, 5), from10), []*appsv1.ReplicaSet{sized(set(1, 8, 8), from10)}, map[string]int32{"set-1": 11, "set-2": 7}},
		"down as up":                             {web(5, "3", "2"), sized(set(2, 5, 5), from10), []*appsv1.ReplicaSet{sized(set(1, 8, 8), from10)}, map[string]int32{"set-1": 5, "set-2": 3}},
		"to nothing means all sets to nothing":   {web(0, "3", "2"), sized(set(2, 5, 5), from10), []*appsv1.ReplicaSet{sized(set(1, 8, 8), from10)}, map[string]int32{"set-1": 0, "set-2": 0}},
		"without notes the rest goes to largest": {web(15, "3", "2"), set(2, 5, 5), []*appsv1.ReplicaSet{set(1, 8, 8)}, map[string]int32{"set-1": 13, "set-2": 5}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, sizes(proportional(tc.d, tc.newSet, tc.olds))); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestProgressIsJudgedByTheDeadline(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 0)
	with := func(reason string, is corev1.ConditionStatus, status appsv1.DeploymentStatus) appsv1.DeploymentStatus {
		status.Conditions = []appsv1.DeploymentCondition{{
			Type: appsv1.DeploymentProgressing, Status: is, Reason: reason,
			LastUpdateTime: metav1.Time{Time: start}, LastTransitionTime: metav1.Time{Time: start},
		}}
		return status
	}
	counts := func(replicas, updated, available int32) appsv1.DeploymentStatus {
		return appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: replicas, UpdatedReplicas: updated, ReadyReplicas: available, AvailableReplicas: available}
	}
	for name, tc := range map[string]struct {
		old, status appsv1.DeploymentStatus
		after       time.Duration
		want        string
	}{
		"all there is success":                   {with("ReplicaSetUpdated", corev1.ConditionTrue, counts(4, 3, 3)), counts(4, 4, 4), time.Minute, "True NewReplicaSetAvailable"},
		"one more is progress":                   {with("NewReplicaSetCreated", corev1.ConditionTrue, counts(4, 0, 4)), counts(5, 1, 4), time.Hour, "True ReplicaSetUpdated"},
		"nothing new within the deadline":        {with("ReplicaSetUpdated", corev1.ConditionTrue, counts(5, 2, 3)), counts(5, 2, 3), time.Minute, "True ReplicaSetUpdated"},
		"nothing new after the deadline":         {with("ReplicaSetUpdated", corev1.ConditionTrue, counts(5, 2, 3)), counts(5, 2, 3), time.Hour, "False ProgressDeadlineExceeded"},
		"it stays timed out":                     {with("ProgressDeadlineExceeded", corev1.ConditionFalse, counts(5, 2, 3)), counts(5, 2, 3), time.Minute, "False ProgressDeadlineExceeded"},
		"a finished rollout does not time out":   {with("NewReplicaSetAvailable", corev1.ConditionTrue, counts(4, 4, 4)), counts(4, 4, 3), time.Hour, "True NewReplicaSetAvailable"},
		"a new rollout after a finished one too": {with("NewReplicaSetAvailable", corev1.ConditionTrue, counts(4, 4, 4)), counts(4, 0, 4), time.Hour, "True NewReplicaSetAvailable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := web(4, "1", "1")
			d.Status = tc.old
			status := tc.status
			status.Conditions = append([]appsv1.DeploymentCondition(nil), tc.old.Conditions...)
			judgeProgress(d, set(2, 4, 4), &status, start.Add(tc.after))
			got := condition(&status, appsv1.DeploymentProgressing)
			if text := fmt.Sprint(got.Status, " ", got.Reason); text != tc.want {
				t.Fatalf("got %s, want %s", text, tc.want)
			}
		})
	}
}

func TestTemplateHashIsKubernetes(t *testing.T) {
	t.Parallel()
	template := &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}}
	one, two := int32(1), int32(2)
	plain := templateHash(template, nil)
	if plain == "" || strings.ContainsAny(plain, "aeiou013") {
		t.Errorf("hash %q is not in the alphabet that makes no words", plain)
	}
	if plain == templateHash(template, &one) || templateHash(template, &one) == templateHash(template, &two) {
		t.Error("the collision count does not change the hash")
	}
	if name := setName(strings.Repeat("a", 253), plain); len(name) != 253 || !strings.HasSuffix(name, "-"+plain) {
		t.Errorf("name of %d characters: %s", len(name), name)
	}
}

func TestRevisionHistory(t *testing.T) {
	t.Parallel()
	d := web(1, "1", "1")
	d.Annotations = map[string]string{"kubernetes.io/change-cause": "because", revisionAnnotation: "7", corev1.LastAppliedConfigAnnotation: "{}"}
	s := set(1, 1, 1)
	s.Annotations = map[string]string{revisionAnnotation: "2", historyAnnotation: "1"}
	if !annotate(d, s, 4) {
		t.Fatal("no change was told")
	}
	want := map[string]string{"kubernetes.io/change-cause": "because", revisionAnnotation: "4", historyAnnotation: "1,2"}
	if diff := cmp.Diff(want, s.Annotations); diff != "" {
		t.Fatal(diff)
	}
	if annotate(d, s, 3) {
		t.Error("a set with a higher revision was changed")
	}
	if history, fits := appendHistory(strings.Repeat("1234,", 399)+"1234", "9999"); !fits || len(history) > historyLength || !strings.HasSuffix(history, ",9999") {
		t.Errorf("history of %d characters", len(history))
	}
	if got := lastRevision([]*appsv1.ReplicaSet{s, set(2, 1, 1)}); got != 0 {
		t.Errorf("last revision %d, want 0", got)
	}
}
