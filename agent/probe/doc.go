// Package probe finds out whether containers started, live and are ready.
//
// The pod worker tells which containers run (Sync); each probe is then a timer
// that runs one check, counts successes and failures, and calls back when its
// result turns. No goroutine waits between two checks. Results are asked for by
// container id.
package probe
