package raw

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/storage"

	"github.com/skiff-run/skiff/raftstore"
)

// The texts of Kubernetes for lists and watches that ask for too old a state.
const (
	listExpired          = "The resourceVersion for the provided list is too old."
	watchExpired         = "The resourceVersion for the provided watch is too old."
	continueExpired      = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter."
	continueInconsistent = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, " +
		"or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - " +
		"objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."
)

// unavailable turns the store's refusals into answers a client can act on. What
// was surely not done may be tried again, and clients do so by themselves when
// they are told after how long. What may have been done is a timeout without
// such a word: only who asked can find out.
func unavailable(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raftstore.ErrTooLarge):
		return apierrors.NewRequestEntityTooLargeError(err.Error())
	case errors.Is(err, raftstore.ErrOutcomeUnknown):
		return apierrors.NewTimeoutError("the store did not answer in time, and the change may have been made: "+err.Error(), 0)
	case errors.Is(err, context.DeadlineExceeded):
		return apierrors.NewTimeoutError("the store did not answer in time: "+err.Error(), 0)
	case errors.Is(err, raftstore.ErrNotLeader):
		return retriable("the store has no leader at the moment: ", err)
	case errors.Is(err, raftstore.ErrClosed):
		return retriable("this API server is stopping: ", err)
	}
	return err
}

func retriable(why string, err error) error {
	refusal := apierrors.NewServiceUnavailable(why + err.Error())
	refusal.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: 1}
	return refusal
}

// ListError explains why a list at a revision cannot be read.
func (s *Store) ListError(err error, revision int64, paging bool, continueKey, prefix string) error {
	switch {
	case errors.Is(err, raftstore.ErrFutureRevision):
		return storage.NewTooLargeResourceVersionError(uint64(revision), uint64(s.Config.Store.Revision()), 0)
	case !errors.Is(err, raftstore.ErrCompacted):
		return fmt.Errorf("list %s: %w", prefix, err)
	case !paging:
		return apierrors.NewResourceExpired(listExpired)
	}
	// Revision -1 in a token means: go on with the newest state.
	token, tokenErr := storage.EncodeContinue(continueKey, prefix, -1)
	if tokenErr != nil {
		return apierrors.NewResourceExpired(continueExpired)
	}
	expired := apierrors.NewResourceExpired(continueInconsistent)
	expired.ErrStatus.ListMeta.Continue = token
	return expired
}
