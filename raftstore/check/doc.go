// Package check decides whether a store kept its promises, from a record of
// what clients asked and were answered while it was being mistreated.
//
// In flow the operations of clients (History), the watches they held (Watch) and
// the mutations the store made (Log); out flow violations as errors that name
// the operation, the revision and what was expected instead. The package
// knows no store: a simulation within one process and a test of real processes
// over HTTP record the same things.
//
//	Linearizable  each key behaves as one register (porcupine)
//	Ordered       the whole store is strictly serializable in the order of its
//	              revisions; every answer is what a replay of the log says
//	Watched       the nine guarantees of a watch
//	Durable       what was acknowledged is in the log, once, and nothing is
//	              there that nobody asked for
//	Agreement     members never disagree, terms have one leader, revisions do
//	              not go back
package check
