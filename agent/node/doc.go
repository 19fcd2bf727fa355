// Package node keeps the Node object of this machine: it registers it, reports
// capacity, conditions, addresses and images, and renews the lease that proves
// the agent lives.
//
// Facts come from the kernel and the runtime; what other nodes and services the
// cluster has comes back through one watch each, trimmed to what pods and
// routes need.
package node
