// Package backendtest tells whether a backend makes the kernel do what
// Kubernetes promises of Services: one table of cases for every backend, run
// with real connections between network namespaces that play a node, its pods,
// a pod elsewhere and a host outside the cluster.
//
// A backend's test is one call of Run. The namespaces have no names: the
// kernel removes them with the process, however it ends.
package backendtest
