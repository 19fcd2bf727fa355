// Package coordination holds the coordination.k8s.io API group: Leases, by
// which agents show that they are alive and controllers elect a leader.
package coordination
