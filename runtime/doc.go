// Package runtime runs the pods of one machine on containerd.
//
// It is the part of the node that a CRI server is elsewhere: the agent speaks
// the vocabulary of the Container Runtime Interface (k8s.io/cri-api) to it, by
// Go method calls instead of gRPC, and it turns that into images, namespaces,
// OCI specs, tasks, log files, cgroups and network links.
//
// In flow: sandbox and container configurations from the agent, task and image
// events from containerd. Out flow: statuses, log files in the CRI format and
// the events on Events. It must not know the API server, pods as API objects, or
// why a container is wanted.
//
// The process may be killed at any moment: what a pod sandbox is stands in one
// small file per sandbox, what a container is stands in containerd (labels and
// extensions of its record), and New finds both again, re-opens the output
// pipes and notices the exits that happened meanwhile.
package runtime
