// Package allocator hands out numbers of a range, service addresses and node
// ports, each to one owner.
//
// What is taken is one record in the store, changed by compare-and-swap, so
// that several API servers never give one number twice. The truth is the
// Services themselves: Repair brings the record in line with them, after a
// crash between taking a number and storing its Service for example.
package allocator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
)

// Errors callers tell users of.
var (
	ErrFull      = errors.New("range is full")
	ErrAllocated = errors.New("provided number is already allocated")
)

// Range is a range of numbers from 0 to Size-1 with its record in the store.
// It is safe for concurrent use.
type Range struct {
	store storage.Interface
	key   string
	// name describes the range in its record: 10.96.0.0/16.
	name string
	size int
	// static is how many numbers at the start are only given when the upper ones
	// are used up: they are for people who choose (KEP-3070).
	static int
	// reserved are never given unless they are asked for by number.
	reserved map[int]bool
}

// New returns the range whose record is at key.
func New(store storage.Interface, key, name string, size int, reserved ...int) *Range {
	r := &Range{store: store, key: key, name: name, size: size, static: staticPart(size), reserved: map[int]bool{}}
	for _, number := range reserved {
		r.reserved[number] = true
	}
	return r
}

// staticPart is upstream's: between 16 and 256, a sixteenth of the range; small
// ranges have none.
func staticPart(size int) int {
	const least, most, share = 16, 256, 16
	if size < least {
		return 0
	}
	return min(max(least, size/share), most)
}

// Take takes one number, which must be free.
func (r *Range) Take(ctx context.Context, number int) error {
	if number < 0 || number >= r.size {
		return fmt.Errorf("number %d is not in the range of %d", number, r.size)
	}
	return r.change(ctx, func(taken bitmap) error {
		if taken.has(number) {
			return ErrAllocated
		}
		taken.set(number)
		return nil
	})
}

// Next takes any free number, from the upper part first.
func (r *Range) Next(ctx context.Context) (int, error) {
	chosen := -1
	err := r.change(ctx, func(taken bitmap) error {
		chosen = r.pick(taken, r.static, r.size)
		if chosen < 0 {
			chosen = r.pick(taken, 0, r.static)
		}
		if chosen < 0 {
			return ErrFull
		}
		taken.set(chosen)
		return nil
	})
	return chosen, err
}

// pick finds a free number from low on to before high, beginning anywhere, so
// that a freed one is not given again at once.
func (r *Range) pick(taken bitmap, low, high int) int {
	if high <= low {
		return -1
	}
	start := rand.IntN(high - low)
	for i := range high - low {
		number := low + (start+i)%(high-low)
		if !taken.has(number) && !r.reserved[number] {
			return number
		}
	}
	return -1
}

// Free gives a number back; one that is free already is fine.
func (r *Range) Free(ctx context.Context, number int) error {
	return r.change(ctx, func(taken bitmap) error {
		taken.clear(number)
		return nil
	})
}

// Repair makes the record hold what is in use. Numbers that are missing are
// added at once; a number in the record that nobody uses may belong to a
// Service that is just being made, so it goes only when suspects, the result of
// the last Repair, already had it.
func (r *Range) Repair(ctx context.Context, used map[int]bool, suspects map[int]bool) (map[int]bool, error) {
	var leaked map[int]bool
	err := r.change(ctx, func(taken bitmap) error {
		leaked = map[int]bool{}
		for number := range used {
			taken.set(number)
		}
		for number := range r.size {
			if !taken.has(number) || used[number] {
				continue
			}
			if suspects[number] {
				taken.clear(number)
			} else {
				leaked[number] = true
			}
		}
		return nil
	})
	return leaked, err
}

// change applies a change to the record. It is called again when another
// server was faster.
func (r *Range) change(ctx context.Context, change func(bitmap) error) error {
	return r.store.GuaranteedUpdate(ctx, r.key, &corev1.RangeAllocation{}, true, nil,
		storage.SimpleUpdate(func(object runtime.Object) (runtime.Object, error) {
			record, ok := object.(*corev1.RangeAllocation)
			if !ok {
				return nil, fmt.Errorf("record %s: got %T", r.key, object)
			}
			if record.Range != "" && record.Range != r.name {
				return nil, fmt.Errorf("the range was %s and is configured as %s now: it cannot be changed while services exist", record.Range, r.name)
			}
			taken := make(bitmap, (r.size+7)/8)
			copy(taken, record.Data)
			if err := change(taken); err != nil {
				return nil, err
			}
			record.Range, record.Data = r.name, taken
			return record, nil
		}), nil)
}

// bitmap has a bit for each number.
type bitmap []byte

func (b bitmap) has(number int) bool { return b[number/8]&(1<<(number%8)) != 0 }
func (b bitmap) set(number int)      { b[number/8] |= 1 << (number % 8) }
func (b bitmap) clear(number int)    { b[number/8] &^= 1 << (number % 8) }

// Size is how many numbers the range has.
func (r *Range) Size() int { return r.size }
