package raftstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// A call is one byte for its kind, the caller's cluster and a body; an answer is one byte for its
// status and a body, the text of the error if there is one.

// callKind says what a member wants of another. The numbers are on the wire.
type callKind uint8

const (
	callPropose   callKind = 1 // append a batch to the log
	callReadIndex callKind = 2 // what was committed by now
	callTerm      callKind = 3 // the term the member is in
	callSituation callKind = 4 // what the member thinks of log and leader
	// Membership begins at 32.
)

// callHandler answers one kind of call.
type callHandler func(ctx context.Context, from string, body []byte) ([]byte, error)

// callHandlers are what this member answers.
func (s *Store) callHandlers() map[callKind]callHandler {
	handlers := map[callKind]callHandler{
		callPropose:   s.answerPropose,
		callReadIndex: s.answerReadIndex,
		callTerm:      s.answerTerm,
		callSituation: s.answerSituation,
	}
	maps.Copy(handlers, s.membershipHandlers())
	return handlers
}

// The statuses of an answer, by index. Their order is on the wire: only append.
var callErrors = []error{
	1:  ErrNotLeader,
	2:  ErrOutcomeUnknown,
	3:  ErrClosed,
	4:  ErrTooLarge,
	5:  ErrCompacted,
	6:  ErrFutureRevision,
	7:  errNotMember,
	8:  ErrOtherCluster,
	9:  ErrRefused,
	10: ErrRemoved,
}

// errNotMember: the other side does not count this member to the store.
var errNotMember = errors.New("not a member of this store")

const (
	statusDone  = 0
	statusOther = 255 // an error without a number
)

// serve answers the calls of other members.
func (s *Store) serve(ctx context.Context, from string, request []byte) []byte {
	select {
	case <-s.started:
	case <-s.closing:
		return answerError(ErrClosed)
	case <-ctx.Done():
		return answerError(ctx.Err())
	}
	if len(request) == 0 {
		return answerError(errors.New("an empty call"))
	}
	handler := s.handlers[callKind(request[0])]
	if handler == nil {
		return answerError(fmt.Errorf("this member does not know calls of kind %d; all members need the same version", request[0]))
	}
	r := &wireReader{b: request[1:]}
	if err := sameCluster(s.ClusterID(), r.string(), from); err != nil {
		return answerError(err)
	}
	if r.bad {
		return answerError(errors.New("malformed call"))
	}
	// A replacement that came to its end may be asked for again.
	if !s.admits(from) && callKind(request[0]) != callReplace {
		return answerError(s.farewellTo(from))
	}
	body, err := handler(ctx, from, r.b)
	if err != nil {
		return answerError(err)
	}
	return slices.Insert(body, 0, statusDone)
}

func answerError(err error) []byte {
	status := byte(statusOther)
	for i, known := range callErrors {
		if known != nil && errors.Is(err, known) {
			status = byte(i)
		}
	}
	return append([]byte{status}, err.Error()...)
}

// remoteError is an error another member answered.
type remoteError struct {
	member, text string
	known        error // nil if it has no number
}

func (e *remoteError) Error() string { return fmt.Sprintf("member %s answers: %s", e.member, e.text) }

// Unwrap lets errors.Is find the error's kind across the wire.
func (e *remoteError) Unwrap() error { return e.known }

// call asks one member.
func (s *Store) call(ctx context.Context, id, address string, kind callKind, body []byte) ([]byte, error) {
	if s.options.Network == nil {
		return nil, fmt.Errorf("%w: this member has no network", ErrUnreachable)
	}
	request := appendWireString([]byte{byte(kind)}, s.ClusterID())
	answer, err := s.options.Network.Call(ctx, id, address, append(request, body...))
	if err != nil {
		return nil, err
	}
	if len(answer) == 0 {
		return nil, fmt.Errorf("member %s answered nothing", id)
	}
	if answer[0] == statusDone {
		return answer[1:], nil
	}
	failed := &remoteError{member: id, text: string(answer[1:])}
	if i := int(answer[0]); i < len(callErrors) {
		failed.known = callErrors[i]
	}
	return nil, failed
}

// askAgain is how long a member waits before it looks for the leader again.
const askAgain = 20 * time.Millisecond

// callLeader asks the leader, wherever it is, until it gives an answer other
// than ErrNotLeader or ctx ends. On the leader itself the handler is called
// directly. Only for what may be asked twice.
func (s *Store) callLeader(ctx context.Context, kind callKind, body []byte) ([]byte, error) {
	for {
		answer, err := s.callLeaderOnce(ctx, kind, body)
		if err == nil || !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrUnreachable) {
			return answer, err
		}
		select {
		case <-time.After(askAgain):
		case <-s.closing:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", err, ctx.Err())
		}
	}
}

func (s *Store) callLeaderOnce(ctx context.Context, kind callKind, body []byte) ([]byte, error) {
	address, leader := s.raft.LeaderWithID()
	switch string(leader) {
	case "":
		return nil, ErrNotLeader
	case s.id.ID:
		return s.handlers[kind](ctx, s.id.ID, body)
	}
	return s.call(ctx, string(leader), string(address), kind, body)
}

// admits decides who may speak to this member: those in the newest
// configuration it knows. While it knows no leader, or one that is not in there,
// that configuration is old; then it listens to every holder of a store's
// certificate, and raft's terms and votes tell who is right.
func (s *Store) admits(id string) bool {
	select {
	case <-s.started:
	default:
		return true
	}
	_, leader := s.raft.LeaderWithID()
	known, current := false, false
	for _, server := range s.configuration().Servers {
		known = known || string(server.ID) == id
		current = current || server.ID == leader
	}
	return known || !current
}

// configuration is the newest this member knows, committed or not.
func (s *Store) configuration() raft.Configuration {
	return s.raft.GetConfiguration().Configuration()
}

// wireReader consumes the body of a call and remembers whether it ran short.
type wireReader struct {
	b   []byte
	bad bool
}

func (r *wireReader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *wireReader) string() string {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return ""
	}
	v := string(r.b[:n])
	r.b = r.b[n:]
	return v
}

// end reports an error if the body was not exactly what was read of it.
func (r *wireReader) end() error {
	if r.bad || len(r.b) > 0 {
		return errors.New("malformed call")
	}
	return nil
}

// appendWireString is the counterpart of wireReader.string; numbers are
// appended with binary.AppendUvarint.
func appendWireString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
