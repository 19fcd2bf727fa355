// Package logs carries a container's output from the shim's pipes into its log
// file, in the format of the Container Runtime Interface:
//
//	2006-01-02T15:04:05.000000000Z stdout F a whole line
//	2006-01-02T15:04:05.000000000Z stderr P a part of a line
//
// In flow named pipes, out flow lines in a rotated file and copies to whoever is
// attached. It must not know containerd.
//
// No line is lost when the process is killed at any moment: bytes are looked at
// with tee(2), which leaves them in the pipe, appended to the log file, and only
// then taken out of the pipe. The pipe outlives the process, because the shim
// holds both of its ends; when it is full the container waits. So that what was
// appended but not yet taken out is not appended twice after a restart, every
// append is announced in a small mark file beside the pipe, and all records of one
// append carry the same unique timestamp.
//
// One case remains: when a container exits while no process of ours lives, its
// shim closes the pipe, and the kernel drops what was in it (64 KiB at most).
package logs
