// Package agent is the kubelet's role: it runs the pods that are assigned to
// this machine and reports what became of them.
//
// It only joins the parts. Pods come from podsource, each gets a worker in
// podworker, which decides with plan, makes things with volume, criconfig,
// image, hook and the runtime, and describes them with podstatus; statuswriter
// carries that to the API. probe, node, server, housekeeping and image run
// beside. The runtime is reached through small interfaces; package runtime's
// types are known to the file host.go only.
//
// Killing the agent at any moment is allowed: containers run on, and the next
// agent reads all it needs from the runtime, the disk and the API.
package agent
