// Package server is the agent's HTTPS endpoint on port 10250: container logs,
// exec, attach, port forwarding, and what the node can tell about itself.
//
// Every request is authenticated by client certificate or token and authorized
// by the API server as access to the node. Streams go straight to the runtime.
package server
