// Package podstate is what the runtime says about one pod: its sandboxes and
// all its containers, with what the agent wrote on them when it made them.
//
// It flows from the runtime into the pure functions that decide (package plan)
// and describe (package podstatus). Everything needed to go on after a crash of
// the agent is read from here: restart counts, back-off, the spec's hash. It
// knows nothing of the API server.
package podstate
