// Package endurance runs pods on one node, makes and deletes others all the
// time, and kills the agent, containerd and shims meanwhile.
//
// It asks for three things: pods that nobody touches keep their containers and
// lose no line of their logs, every other pod becomes what its spec says and
// goes when it is deleted, and at the end the node holds exactly what it held
// before: mounts, network namespaces, links, addresses, cgroups, snapshots,
// containers, pipes, folders, processes, and the agent's goroutines and files.
package endurance
