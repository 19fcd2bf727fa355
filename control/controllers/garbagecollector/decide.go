package garbagecollector

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// ownerState is what is known of an owner that is referred to.
type ownerState int

const (
	// here: the informer has it.
	here ownerState = iota
	// missing: the informer does not have it, which may be because it is late.
	missing
	// gone: it was seen to be deleted, or the API says it does not exist.
	gone
	// unknownKind: its kind is not served.
	unknownKind
	// unreachable: a cluster-scoped object refers to a namespaced kind. There is no
	// telling which is meant, so nothing is done.
	unreachable
)

// judged is a reference with what is known of the owner.
type judged struct {
	uid   types.UID
	state ownerState
	// waiting says that the owner is being deleted and waits for its dependents.
	waiting bool
}

// plan is what is to be done about a dependent.
type plan struct {
	// drop has owners whose references are to be removed; the object stays.
	drop []types.UID
	// delete says that the object is to be deleted, with this propagation.
	delete metav1.DeletionPropagation
	// unblock says that before, its references must stop blocking its owners,
	// because a circle of objects would wait for each other otherwise.
	unblock bool
}

// decide returns what is to be done about an object with these owners. It stays
// as long as one owner does; otherwise it is deleted, and if an owner waits for
// it and it has dependents of its own, it waits for those in turn.
func decide(owners []judged, finalizers []string, hasDependents, dependentWaits bool) plan {
	var p plan
	solid, waiting := false, false
	for _, owner := range owners {
		switch {
		case owner.state == unknownKind || owner.state == unreachable || owner.state == missing:
			return plan{}
		case owner.state == gone:
			p.drop = append(p.drop, owner.uid)
		case owner.waiting:
			waiting = true
			p.drop = append(p.drop, owner.uid)
		default:
			solid = true
		}
	}
	if solid || len(owners) == 0 {
		return p
	}
	p.drop = nil
	switch {
	case waiting && hasDependents:
		p.delete, p.unblock = metav1.DeletePropagationForeground, dependentWaits
	case slices.Contains(finalizers, metav1.FinalizerOrphanDependents):
		p.delete = metav1.DeletePropagationOrphan
	case slices.Contains(finalizers, metav1.FinalizerDeleteDependents):
		p.delete = metav1.DeletePropagationForeground
	default:
		p.delete = metav1.DeletePropagationBackground
	}
	return p
}
