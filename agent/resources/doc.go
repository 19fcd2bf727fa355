// Package resources turns a pod's requests and limits into what the kernel
// understands: QoS class, place in the kubepods cgroup tree, CPU shares and
// quota, memory limit and OOM score.
//
// Everything is a pure function of the pod and the machine's memory; nothing
// here touches a cgroup.
package resources
