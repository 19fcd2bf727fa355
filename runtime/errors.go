package runtime

import "errors"

var (
	// ErrNotFound says that the sandbox, container or image does not exist.
	ErrNotFound = errors.New("not found")
	// ErrExecTimeout says that a command was killed because its time was over.
	ErrExecTimeout = errors.New("command timed out")
	// ErrNotRunning says that the container has no running process.
	ErrNotRunning = errors.New("container is not running")
)
