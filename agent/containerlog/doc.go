// Package containerlog reads container logs in the CRI format for kubectl logs:
// from the end or from a time, with or without time stamps, and following what
// is still being written, across rotation.
//
// A file and options go in, lines come out on two writers. It knows no runtime:
// a callback tells whether the container still runs.
package containerlog
