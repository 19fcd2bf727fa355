//go:build !machines

package proof

// harder is what only `make machines` does.
var harder []step
