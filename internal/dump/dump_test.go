package dump_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/skiff-run/skiff/internal/dump"
)

func TestAnInterruptedListIsReadAgain(t *testing.T) {
	t.Parallel()
	interrupted := fmt.Errorf("list links: %w", netlink.ErrDumpInterrupted)
	other := errors.New("no such device")
	for name, tc := range map[string]struct {
		answers []error
		want    error
		reads   int
	}{
		"whole at once":                    {[]error{nil}, nil, 1},
		"whole after two changes":          {[]error{interrupted, interrupted, nil}, nil, 3},
		"another error is not read again":  {[]error{other}, other, 1},
		"another error after an interrupt": {[]error{interrupted, other}, other, 2},
		"never whole":                      {slices.Repeat([]error{interrupted}, 100), netlink.ErrDumpInterrupted, 20},
	} {
		reads := 0
		got, err := dump.Whole(func() (int, error) {
			reads++
			return reads, tc.answers[reads-1]
		})
		if !errors.Is(err, tc.want) || got != tc.reads || reads != tc.reads {
			t.Errorf("%s: %d reads, answer %d, error %v", name, reads, got, err)
		}
	}
}
