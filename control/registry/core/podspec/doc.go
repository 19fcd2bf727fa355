// Package podspec knows what a pod may look like: the defaults its fields take, the rules they must
// satisfy on creation and on each kind of update, and what the API server derives from them (the
// quality-of-service class, the generation, pod-level resources).
//
// Everything here is a pure function of API objects: pods, pod templates and their predecessors go
// in; changed objects and field error lists come out. The messages and field paths are those of
// Kubernetes v1.37 with its default feature gates, because people and tools read them. Fields which
// belong to features that are off by default in v1.37 are removed by the Drop functions before
// validation, as upstream removes them, so no rule here speaks of them.
//
// The package must not know about storage, requests, users or clocks.
package podspec
