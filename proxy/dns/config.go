// Package dns is the cluster's name server on one machine: the names of the
// Kubernetes DNS specification 1.1 from memory, everything else from the
// machine's own resolvers.
//
// Answers are computed by a pure function from the Services and EndpointSlices
// that the proxy watches anyway; they need no API server at that moment. The
// service address that pods ask is put on a link of our own, so no rule of any
// backend stands between a pod and its name server.
package dns

import (
	"log/slog"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Config of the name server.
type Config struct {
	// Address is what pods ask, 10.96.0.10.
	Address netip.Addr
	// Domain is the cluster's, without dots at its ends.
	Domain string
	// Upstreams are host:port of the servers for other names. Empty: those of
	// ResolvConf, read again when it changes.
	Upstreams []string
	// Policy says whom of several to ask first: Sequential or Random.
	Policy string
	// StubDomains are host:port of the servers for a domain and what is below it.
	// The longest domain wins.
	StubDomains map[string][]string
	// ResolvConf is the file to read upstreams from; empty: /etc/resolv.conf, or
	// systemd-resolved's own list where that file points at its stub.
	ResolvConf string
	Logger     *slog.Logger
}

// Source is the state that names are answered from. Objects are read-only.
type Source interface {
	// Service returns nil when there is none.
	Service(namespace, name string) *corev1.Service
	Slices(namespace, service string) []*discoveryv1.EndpointSlice
	// Namespace says whether there is one of that name.
	Namespace(name string) bool
	// ServicesAt are those with this cluster address, SlicesAt those slices of
	// headless services that have an endpoint there.
	ServicesAt(address netip.Addr) []*corev1.Service
	SlicesAt(address netip.Addr) []*discoveryv1.EndpointSlice
}

// The values of Policy.
const (
	Sequential = "sequential"
	Random     = "random"
)
