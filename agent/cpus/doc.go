// Package cpus gives containers of guaranteed pods that ask for whole processors exclusive ones, and keeps everybody else
// off them.
//
// What is given is decided when a pod is admitted and kept in a file until the pod has ended. The processors that are
// left are shared by all other containers; when they change, the containers that run are told.
package cpus
