// Package simulation runs whole clusters of real stores in one process and in
// virtual time, on disks and networks that fail, while clients write, read and
// watch; then it has package check decide whether every promise was kept.
//
// A run is made from a seed: the number of members, the bounds of logs, segments,
// snapshots and history, the load and every fault with its time come from it.
// Goroutines are not scheduled by the seed, so a seed repeats the faults and not
// each interleaving; a failure that depends on one may need a few repetitions:
//
//	go test ./raftstore/simulation -run TestSimulation -seed 17 -repeat 10 -v
//
// Virtual time (testing/synctest) stands still while any goroutine runs or waits
// for a mutex. So nothing here sleeps while it holds one, disks delay only what
// is written without one (internal/faultfs), and a goroutine that is left over
// at the end of a run fails the test.
package simulation
