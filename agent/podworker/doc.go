// Package podworker makes what runs on this node follow what the API says.
//
// Every pod has one worker: a goroutine that looks at the pod's spec and at
// what the runtime holds, lets package plan decide, performs the plan, and
// hands the pod's status on. Workers are woken by changes of the spec, by
// events of the runtime, by probes and by changed config maps; nothing polls.
// A worker keeps nothing that matters in memory, so that a killed agent goes on
// where it was.
//
// A pod's stages are active (follow the plan), stopping (kill, tear down),
// stopped (final status written, remains kept for logs), and, when the API has
// forgotten the pod, purged.
package podworker
