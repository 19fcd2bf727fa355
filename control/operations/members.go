package operations

import (
	"context"
	"errors"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/raftstore"
)

// changeLimit bounds one change of the store's membership or leadership: an
// election may come in between.
const changeLimit = 20 * time.Second

// done is the answer of what has nothing to tell.
type done struct{}

func (o *Operations) members(r *http.Request) (any, error) {
	found, err := o.Store.Members(r.Context())
	if err != nil {
		return nil, explain(err)
	}
	list := operator.MemberList{Members: make([]operator.Member, len(found))}
	for i, member := range found {
		list.Members[i] = operator.Member(member)
	}
	return list, nil
}

func (o *Operations) addMember(r *http.Request) (any, error) {
	var request operator.MemberRequest
	if err := decode(r, &request); err != nil {
		return nil, err
	}
	return o.change(r, "add", request.ID, func(ctx context.Context) error {
		return o.Store.AddMember(ctx, request.ID, request.Address)
	})
}

func (o *Operations) removeMember(r *http.Request) (any, error) {
	return o.change(r, "remove", r.PathValue("id"), func(ctx context.Context) error {
		return o.Store.RemoveMember(ctx, r.PathValue("id"))
	})
}

func (o *Operations) promoteMember(r *http.Request) (any, error) {
	return o.change(r, "promote", r.PathValue("id"), func(ctx context.Context) error {
		return o.Store.PromoteMember(ctx, r.PathValue("id"))
	})
}

func (o *Operations) transfer(r *http.Request) (any, error) {
	var request operator.TransferRequest
	if err := decode(r, &request); err != nil {
		return nil, err
	}
	return o.change(r, "transfer leadership to", request.ID, func(ctx context.Context) error {
		return o.Store.TransferLeadership(ctx, request.ID)
	})
}

// change does one change and tells the log who asked for it.
func (o *Operations) change(r *http.Request, what, id string, do func(context.Context) error) (any, error) {
	ctx, cancel := context.WithTimeout(r.Context(), changeLimit)
	defer cancel()
	if err := do(ctx); err != nil {
		o.Logger.Warn("a change of the store's members was asked for in vain", "change", what, "member", id, "user", requester(r), "error", err)
		return nil, explain(err)
	}
	o.Logger.Info("the store's members were changed", "change", what, "member", id, "user", requester(r))
	return done{}, nil
}

// explain gives an error of the store the code that says whether to try again.
func explain(err error) error {
	switch {
	case errors.Is(err, raftstore.ErrRefused):
		return &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusConflict, Reason: metav1.StatusReasonConflict, Message: err.Error(),
		}}
	case errors.Is(err, raftstore.ErrNotLeader), errors.Is(err, raftstore.ErrClosed), errors.Is(err, context.DeadlineExceeded):
		return apierrors.NewServiceUnavailable("the store has no leader that answers: " + err.Error())
	}
	return apierrors.NewInternalError(err)
}

// snapshot streams the store. A stream that ends early is not complete, and
// whoever reads it notices by its checksums.
func (o *Operations) snapshot(w http.ResponseWriter, r *http.Request) {
	begun := &firstWrite{ResponseWriter: w}
	info, err := o.Store.SaveSnapshot(own(r.Context()), begun)
	switch {
	case err == nil:
		o.Logger.Info("a snapshot was taken", "revision", info.Revision, "keys", info.Keys)
	case begun.yes:
		o.Logger.Warn("a snapshot was cut short", "error", err)
		panic(http.ErrAbortHandler) // the client must not take it for the end
	default:
		reply(w, r, func(*http.Request) (any, error) { return nil, explain(err) })
	}
}

// firstWrite remembers whether anything was written.
type firstWrite struct {
	http.ResponseWriter
	yes bool
}

// Write implements io.Writer.
func (f *firstWrite) Write(p []byte) (int, error) {
	if !f.yes {
		f.yes = true
		f.Header().Set("Content-Type", "application/octet-stream")
		f.Header().Set("Cache-Control", "no-store")
	}
	return f.ResponseWriter.Write(p)
}
