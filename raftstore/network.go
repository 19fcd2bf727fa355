package raftstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// Network carries what members say to each other: raft's own traffic and the
// store's calls. Package peer implements it over mutual TLS; a simulation may
// do so in memory. A store owns the Network it was given and closes it.
type Network interface {
	// Start connects the member. It is called once, before any other method.
	// The handler may be called from then on, by many goroutines at once.
	Start(local Local, handler Handler) (Transport, error)
	// Call sends a request to another member and waits for the answer of its
	// handler. An error that wraps ErrUnreachable promises that the handler did
	// not see the request; after any other it may have.
	Call(ctx context.Context, memberID, address string, request []byte) (response []byte, err error)
	// Close ends everything: calls fail, no handler runs when it returns, and
	// the transport is closed.
	Close() error
}

// Handler answers one call. The context ends when the caller has gone or the
// network closes. The request is the handler's to keep.
type Handler func(ctx context.Context, fromMemberID string, request []byte) (response []byte)

// Transport is what raft sends and receives by: pre-votes and closing are
// optional for the library, not for us. A heartbeat handler is never set.
// Messages for a member go by its id; the address is where it was last known.
type Transport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// Local is what a Network has to know about the member it connects.
type Local struct {
	// ID of this member; others must find it in its certificate.
	ID string
	// Address others reach this member by. It is what the transport's
	// LocalAddr says.
	Address string
	// Admits reports whether raft's messages of the member of that id may reach
	// this one. It is asked for each new connection and again while one is used.
	// Calls reach the handler from every member of the same authority.
	Admits func(memberID string) bool
	// Lost, if not nil, may be told that a connection of that member ended, as it
	// does when its process dies. It does not block.
	Lost func(memberID string)
	// Log is for the libraries; it says less as they repeat themselves.
	Log hclog.Logger
}

// ErrUnreachable: the member could not be reached, it did not see the request.
var ErrUnreachable = errors.New("member cannot be reached")

// ErrNobodyListens is an ErrUnreachable for which the member's machine itself
// says that nobody uses the member's port: its process has ended.
var ErrNobodyListens = fmt.Errorf("%w: nobody listens there", ErrUnreachable)
