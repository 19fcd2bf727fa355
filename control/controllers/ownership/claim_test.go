package ownership

import (
	"context"
	"errors"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

var kind = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")

func owner() *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "web-uid"}}
}

func pod(label string, edit func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "a", UID: "a-uid", Labels: map[string]string{"app": label},
	}}
	if edit != nil {
		edit(p)
	}
	return p
}

func controlledBy(o metav1.Object) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(o, kind)}
	}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	now := metav1.Now()
	dying := owner()
	dying.DeletionTimestamp = &now
	other := owner()
	other.UID = "other-uid"
	for name, tc := range map[string]struct {
		owner *appsv1.ReplicaSet
		pod   *corev1.Pod
		want  verdict
	}{
		"an owned pod that matches is kept":                             {owner(), pod("web", controlledBy(owner())), keep},
		"an owned pod that matches is kept by an owner being deleted":   {dying, pod("web", controlledBy(owner())), keep},
		"an owned pod that no longer matches is released":               {owner(), pod("db", controlledBy(owner())), release},
		"an owner being deleted releases nothing":                       {dying, pod("db", controlledBy(owner())), ignore},
		"a pod of another controller is ignored":                        {owner(), pod("web", controlledBy(other)), ignore},
		"a matching orphan is adopted":                                  {owner(), pod("web", nil), adopt},
		"an owner being deleted adopts nothing":                         {dying, pod("web", nil), ignore},
		"an orphan that does not match is ignored":                      {owner(), pod("db", nil), ignore},
		"an orphan being deleted is ignored":                            {owner(), pod("web", func(p *corev1.Pod) { p.DeletionTimestamp = &now }), ignore},
		"an orphan of another namespace is ignored although it matches": {owner(), pod("web", func(p *corev1.Pod) { p.Namespace = "x" }), ignore},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := decide(tc.owner, tc.pod, labels.SelectorFromSet(labels.Set{"app": "web"})); got != tc.want {
				t.Fatalf("got verdict %d, want %d", got, tc.want)
			}
		})
	}
}

func TestClaimAdoptsOnlyForALivingOwner(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fresh   func() (metav1.Object, error)
		claimed int
	}{
		"the owner lives": {func() (metav1.Object, error) { return owner(), nil }, 1},
		"the owner has just been deleted": {func() (metav1.Object, error) {
			o := owner()
			o.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
			return o, nil
		}, 0},
		"the owner was replaced by a namesake": {func() (metav1.Object, error) { o := owner(); o.UID = "new"; return o, nil }, 0},
		"the owner cannot be read":             {func() (metav1.Object, error) { return nil, errors.New("down") }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			patches := 0
			claim := Claim[*corev1.Pod]{
				Owner: owner(), Kind: kind, Selector: labels.SelectorFromSet(labels.Set{"app": "web"}),
				Reread: func(context.Context) (metav1.Object, error) { return tc.fresh() },
				Patch: func(_ context.Context, _ *corev1.Pod, patch []byte) error {
					patches++
					want := `{"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web","uid":"web-uid","controller":true,"blockOwnerDeletion":true}],"uid":"a-uid"}}`
					if string(patch) != want {
						t.Errorf("patch %s, want %s", patch, want)
					}
					return nil
				},
			}
			got, err := claim.Objects(t.Context(), []*corev1.Pod{pod("web", nil)})
			if len(got) != tc.claimed || patches != tc.claimed || (err == nil) != (tc.claimed == 1) {
				t.Fatalf("claimed %d with %d patches, error %v; want %d", len(got), patches, err, tc.claimed)
			}
		})
	}
}
