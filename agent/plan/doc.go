// Package plan decides what has to happen next to a pod on this node.
//
// Compute is a pure function: the pod's spec, what the runtime says exists,
// the probes' results, earlier failures and the clock go in; a list of actions
// and the time at which the answer may change by itself come out. It performs
// nothing and asks nobody, so every rule of the pod life cycle is a table in
// its tests. It must not know the API server, the runtime or goroutines.
package plan
