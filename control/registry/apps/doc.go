// Package apps holds the resources of the apps API group, one file each: the
// workloads that keep pods running.
package apps
