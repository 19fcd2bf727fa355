package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// garbageAtRest is the share of live memory at which the garbage collector
	// runs: earlier than Go's default, because idle memory is what users pay for.
	garbageAtRest = 60
	// garbageInHaste is the share while many requests come: collecting would take
	// a fifth of the processor.
	garbageInHaste = 200
	// haste is how many bytes are allocated in a second when many requests come.
	haste = 32 << 20
	// calm is how long it must be quiet before memory is given back.
	calm = 10 * time.Second
)

// paceGarbage collects garbage seldom in haste and early at rest, and gives
// memory back to the system when haste is over. It ends with ctx.
func paceGarbage(ctx context.Context) {
	const interval = 2 * time.Second
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	before := sample[0].Value.Uint64()
	// The start is a haste of its own.
	debug.SetGCPercent(garbageInHaste)
	hasty, quietSince := true, time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		metrics.Read(sample)
		now := sample[0].Value.Uint64()
		rate := (now - before) / uint64(interval/time.Second)
		before = now
		switch {
		case rate > haste:
			quietSince = time.Now()
			if !hasty {
				hasty = true
				debug.SetGCPercent(garbageInHaste)
			}
		case hasty && time.Since(quietSince) > calm:
			hasty = false
			debug.SetGCPercent(garbageAtRest)
			debug.FreeOSMemory()
		}
	}
}
