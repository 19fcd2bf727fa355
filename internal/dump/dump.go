// Package dump reads lists from the kernel by netlink until one is whole.
//
// The kernel sends a list in pieces and says so when it was changed meanwhile:
// entries may be missing or twice. That is common where pods come and go.
package dump

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// attempts bounds how often a list is read. On a machine on which links change
// all the time the last answer is better than none, and its error says so.
const attempts = 20

// Whole calls list until it is not interrupted and returns what it returned last.
func Whole[T any](list func() (T, error)) (T, error) {
	for i := 1; ; i++ {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || i == attempts {
			return all, err
		}
	}
}
