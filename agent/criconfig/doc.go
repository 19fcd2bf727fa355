// Package criconfig turns a pod's spec into the sandbox and container
// configurations of the CRI.
//
// Spec, node settings and what other packages prepared (variables, volumes,
// files) go in; protobuf messages come out. It starts nothing. What it refuses
// here is what the user sees as CreateContainerConfigError.
package criconfig
