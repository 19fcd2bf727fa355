package announce

import (
	"hash/fnv"
	"net/netip"
	"time"
)

const (
	// beatEvery is how often a machine that has addresses says that it lives, and
	// patience how long it may be silent.
	beatEvery = 400 * time.Millisecond
	patience  = 1200 * time.Millisecond
	// spread is how far apart the machines try to take an address.
	spread = 200 * time.Millisecond
	// lookEvery is how often the sockets of addresses that are held are looked after.
	lookEvery = 5 * time.Second
)

// holding is what is known of an address's Lease.
type holding struct {
	// holder is empty when nobody has it.
	holder string
	// since is when this holder was first seen here.
	since time.Time
}

// action is what to do about an address now.
type action int

const (
	wait action = iota
	hold
	take
	release
)

// decide says what the machine me does about an address, and when to look again
// if nothing changes; never if it is zero. heard is when the holder last gave a
// sign of life, zero for never.
func decide(now time.Time, me string, address netip.Addr, eligible bool, h holding, heard time.Time) (action, time.Time) {
	switch {
	case h.holder == me && eligible:
		return hold, now.Add(lookEvery)
	case h.holder == me:
		return release, time.Time{}
	case !eligible:
		return wait, time.Time{}
	}
	due := h.since
	if h.holder != "" {
		if heard.After(due) {
			due = heard
		}
		due = due.Add(patience)
	}
	if due = due.Add(turn(me, address)); now.Before(due) {
		return wait, due
	}
	return take, time.Time{}
}

// turn is how long a machine lets others try first, so that not all try at
// once, and addresses spread over the machines.
func turn(machine string, address netip.Addr) time.Duration {
	hash := fnv.New64a()
	hash.Write([]byte(machine + "|" + address.String()))
	return time.Duration(hash.Sum64()%1000) * spread / 1000
}
