// Package devices gives containers the devices of device plugins: programs that register at a socket of the
// agent, list what the machine has of a resource, and say what a container needs in order to use one.
//
// Plugins come, change their mind and die; what they list flows into the node's capacity. When a pod is
// admitted its devices are chosen, and stay its own until it has ended, across restarts of agent and plugin:
// the choice and the plugin's answer about it are kept in a file.
package devices
