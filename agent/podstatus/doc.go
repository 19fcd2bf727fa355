// Package podstatus describes a pod to the API: phase, conditions, container
// statuses, addresses.
//
// Generate is a pure function of the pod, what the runtime says, the probes'
// results and the status reported before. Finalize describes a pod none of
// whose containers will ever run again. Writing to the API is not done here.
package podstatus
