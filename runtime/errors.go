package runtime

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Errors that callers branch on. They are also known by their gRPC codes, as those
// of a CRI server are, to callers that do not import this package.
var (
	// ErrNotFound says that the sandbox, container or image does not exist.
	ErrNotFound error = &coded{codes.NotFound, "not found"}
	// ErrExecTimeout says that a command was killed because its time was over.
	ErrExecTimeout error = &coded{codes.DeadlineExceeded, "command timed out"}
	// ErrNotRunning says that the container has no running process.
	ErrNotRunning error = &coded{codes.FailedPrecondition, "container is not running"}
)

type coded struct {
	code    codes.Code
	message string
}

func (e *coded) Error() string { return e.message }

// GRPCStatus lets status.Code recognise the error through any wrapping.
func (e *coded) GRPCStatus() *status.Status { return status.New(e.code, e.message) }
