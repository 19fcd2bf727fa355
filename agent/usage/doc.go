// Package usage tells what the node, its pods and their containers use, in the
// forms people and programs ask for: the summary of /stats/summary, the metrics
// of /metrics/resource and /metrics/cadvisor, and the figures behind kubectl top.
//
// Cgroups, the kernel's counters and file systems go in. Nothing is kept but two
// notes of computing time for every container, for rates, and the sizes of volumes
// for a minute.
package usage
