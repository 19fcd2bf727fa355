package garbagecollector

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	alive := judged{uid: "alive", state: here}
	dead := judged{uid: "dead", state: gone}
	waits := judged{uid: "waits", state: here, waiting: true}
	for name, tc := range map[string]struct {
		owners         []judged
		finalizers     []string
		hasDependents  bool
		dependentWaits bool
		want           plan
	}{
		"an object without owners stays":                         {want: plan{}},
		"an object with a living owner stays":                    {owners: []judged{alive}, want: plan{}},
		"of several owners only the dead are dropped":            {owners: []judged{alive, dead}, want: plan{drop: []types.UID{"dead"}}},
		"and those which wait for it":                            {owners: []judged{waits, alive}, want: plan{drop: []types.UID{"waits"}}},
		"without a living owner it goes":                         {owners: []judged{dead}, want: plan{delete: metav1.DeletePropagationBackground}},
		"it goes for an owner that waits":                        {owners: []judged{waits}, want: plan{delete: metav1.DeletePropagationBackground}},
		"and waits in turn for its own dependents":               {owners: []judged{waits, dead}, hasDependents: true, want: plan{delete: metav1.DeletePropagationForeground}},
		"unblocking its owners when a circle would wait":         {owners: []judged{waits}, hasDependents: true, dependentWaits: true, want: plan{delete: metav1.DeletePropagationForeground, unblock: true}},
		"its finalizer says that dependents stay":                {owners: []judged{dead}, finalizers: []string{metav1.FinalizerOrphanDependents}, want: plan{delete: metav1.DeletePropagationOrphan}},
		"its finalizer says that dependents go first":            {owners: []judged{dead}, finalizers: []string{metav1.FinalizerDeleteDependents}, want: plan{delete: metav1.DeletePropagationForeground}},
		"an owner of an unknown kind keeps it":                   {owners: []judged{dead, {uid: "x", state: unknownKind}}, want: plan{}},
		"an owner that cannot be reached keeps it":               {owners: []judged{{uid: "x", state: unreachable}}, want: plan{}},
		"an owner that was not confirmed to be missing keeps it": {owners: []judged{{uid: "x", state: missing}}, want: plan{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := decide(tc.owners, tc.finalizers, tc.hasDependents, tc.dependentWaits)
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(plan{})); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestGraphKeepsOnlyEdges(t *testing.T) {
	t.Parallel()
	block := true
	g := newGraph()
	item := object{name: "pod", uid: "pod"}
	blocking := []metav1.OwnerReference{{UID: "set", BlockOwnerDeletion: &block}}
	loose := []metav1.OwnerReference{{UID: "set"}, {UID: "other"}}
	g.set(item, nil, blocking)
	if !g.blocked("set") || len(g.of("set")) != 1 {
		t.Fatal("the edge is not there")
	}
	g.set(item, blocking, loose)
	if g.blocked("set") || len(g.of("set")) != 1 || len(g.of("other")) != 1 {
		t.Fatal("the changed edges are not there")
	}
	g.set(item, loose, nil)
	if len(g.dependents) != 0 {
		t.Fatalf("%d owners are left in an empty graph", len(g.dependents))
	}
}

func TestGoneOwnersAreForgottenInOrder(t *testing.T) {
	t.Parallel()
	g := newGoneOwners()
	for i := range remembered + 1 {
		g.add(types.UID(rune('a' + i)))
	}
	if g.has("a") || !g.has("b") || len(g.known) != remembered {
		t.Fatal("not the oldest owner was forgotten")
	}
}
