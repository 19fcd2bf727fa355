// Package allocation remembers what this node has granted every pod, and what of it is in force.
//
// The spec says what a pod wants. What it wants becomes allocated when the node admits the pod, and
// again when it admits a resize; everything the agent does with a pod goes by the allocated amounts.
// What is allocated becomes actuated when the cgroups say so. Both are kept in one small file per pod,
// so that an agent that was killed, or that was down while somebody resized a pod, goes on where it was.
package allocation
