// Package cgroup keeps the tree of control groups in which the pods of a
// machine run:
//
//	ROOT/kubepods                       all pods; limited to what the node gives away
//	ROOT/kubepods/pod<uid>              a Guaranteed pod
//	ROOT/kubepods/burstable/pod<uid>    a Burstable pod
//	ROOT/kubepods/besteffort/pod<uid>   a BestEffort pod
//
// In flow names and limits, out flow directories of cgroup v1 or v2, made
// directly (driver cgroupfs) or as slices by systemd (driver systemd), and what
// they have used. It must not know containerd; the containers' own cgroups below
// a pod's are made by the OCI runtime.
package cgroup
