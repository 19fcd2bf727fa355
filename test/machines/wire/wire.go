// Package wire is what a test and the guest in its virtual machine say to each
// other over a virtio port: gob-encoded requests one way, events the other, one
// request at a time. It works before the machine has a network, and when it has
// lost it.
package wire

import "io/fs"

// Port is the name of the virtio port.
const Port = "skiff.guest"

// Request asks for one thing: Run, Write or PowerOff.
type Request struct {
	Run      *Run
	Write    *Write
	PowerOff bool
}

// Run starts a program and waits for its end.
type Run struct {
	// Args are the program and its arguments, Env more of the environment.
	Args, Env []string
	// Dir is where it runs; empty is /.
	Dir   string
	Stdin []byte
}

// Write writes a part of a file at an offset. The folder is made if it is missing.
type Write struct {
	Path   string
	Mode   fs.FileMode
	Offset int64
	Data   []byte
}

// Event answers a request: any number with output, then one that is Done.
type Event struct {
	// Ready is sent once, when the guest begins to listen.
	Ready          bool
	Stdout, Stderr []byte
	Done           bool
	// ExitCode is that of the program, -1 if a signal ended it.
	ExitCode int
	// Error is why the request could not be served; empty if it was.
	Error string
}
