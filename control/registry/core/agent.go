package core

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/skiff-run/skiff/control/registry"
)

// webSocketFeature is what an agent declares whose streams speak WebSocket themselves.
const webSocketFeature = "ExtendWebSocketsToKubelet"

// agentAddresses are the kinds of node addresses an agent is tried at, best first. Names come
// last: they do not resolve everywhere.
var agentAddresses = []corev1.NodeAddressType{
	corev1.NodeInternalIP, corev1.NodeExternalIP, corev1.NodeHostName, corev1.NodeInternalDNS, corev1.NodeExternalDNS,
}

// nodeReader gives nodes by name.
type nodeReader interface {
	Read(ctx context.Context, name string) (*corev1.Node, error)
}

// agents finds the agent of a node.
type agents struct {
	nodes     nodeReader
	port      int
	transport http.RoundTripper
	// unverified is the same without a check of the agent's certificate; nil when there is none.
	unverified http.RoundTripper
}

// agent is where one agent listens.
type agent struct {
	host, port string
	webSockets bool
}

func newAgents(deps registry.Agents, nodes nodeReader) *agents {
	return &agents{nodes: nodes, port: deps.Port, transport: deps.Transport, unverified: deps.Unverified}
}

// of returns the agent of the named node.
func (a *agents) of(ctx context.Context, nodeName string) (agent, error) {
	node, err := a.nodes.Read(ctx, nodeName)
	if err != nil {
		return agent{}, err
	}
	host, port, err := agentOf(node, a.port)
	if err != nil {
		return agent{}, err
	}
	return agent{host: host, port: port, webSockets: slices.Contains(node.Status.DeclaredFeatures, webSocketFeature)}, nil
}

// agentOf is where the agent of a node listens; port is that of agents whose node names none.
func agentOf(node *corev1.Node, port int) (host, portText string, err error) {
	if own := int(node.Status.DaemonEndpoints.KubeletEndpoint.Port); own > 0 {
		port = own
	}
	for _, kind := range agentAddresses {
		for _, address := range node.Status.Addresses {
			if address.Type == kind && address.Address != "" {
				return address.Address, strconv.Itoa(port), nil
			}
		}
	}
	return "", "", errors.NewInternalError(fmt.Errorf("no preferred addresses found; known addresses: %v", node.Status.Addresses))
}

// AgentAddress is where the agent of a node listens, as host:port; port is that
// of agents whose node names none.
func AgentAddress(node *corev1.Node, port int) (string, error) {
	host, number, err := agentOf(node, port)
	return net.JoinHostPort(host, number), err
}

func (a agent) address() string { return net.JoinHostPort(a.host, a.port) }

// proxyTransport reaches pods and services by address, so it cannot check their names.
func proxyTransport() http.RoundTripper {
	return utilnet.SetTransportDefaults(&http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
	})
}
