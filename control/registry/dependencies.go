package registry

import (
	"context"
	"net/http"
	"net/netip"

	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"

	"github.com/skiff-run/skiff/control/auth/rbac"
	"github.com/skiff-run/skiff/control/auth/token"
	"github.com/skiff-run/skiff/control/registry/scheme"
)

// Dependencies are what resources need of the server they are part of.
type Dependencies struct {
	Scheme      *scheme.Scheme
	RESTOptions generic.RESTOptionsGetter

	// ServiceCIDR is the range of service addresses, NodePorts that of node ports.
	ServiceCIDR netip.Prefix
	NodePorts   utilnet.PortRange
	// DNSAddress is the service address of cluster DNS, given to nobody else.
	DNSAddress    netip.Addr
	ClusterDomain string

	// Agents reaches the agents for logs, exec and port-forward.
	Agents Agents

	// Tokens signs service account tokens; Audiences are what this API is called in them.
	Tokens    *token.Issuer
	Audiences authenticator.Audiences

	// Authenticator, Authorizer and RBAC answer reviews and guard against escalation.
	Authenticator authenticator.Request
	Authorizer    authorizer.Authorizer
	Rules         authorizer.RuleResolver
	RBAC          *rbac.Authorizer

	// Background are loops of resources that the server runs until it stops.
	Background []func(context.Context)

	// Components are the health checks behind componentstatuses, by name:
	// scheduler, controller-manager, etcd-0.
	Components map[string]func(context.Context) error
}

// Agents is how the API server reaches the agents' HTTPS endpoints.
type Agents struct {
	// Transport authenticates us to an agent and the agent to us.
	Transport http.RoundTripper
	// Unverified is the same without a check of the agent's certificate; nil when
	// there is none.
	Unverified http.RoundTripper
	// Port is where agents listen unless their Node says otherwise.
	Port int
}

// Group is an API group with what it serves in each version.
type Group struct {
	Name     string
	Versions map[string]Storages
}

// Info is the group as k8s.io/apiserver installs it. Versions are in the
// scheme's order of preference.
func (g Group) Info(s *scheme.Scheme) genericapiserver.APIGroupInfo {
	info := genericapiserver.NewDefaultAPIGroupInfo(g.Name, s.Scheme, s.ParameterCodec, s.Codecs)
	var versions []schema.GroupVersion
	for _, version := range s.PrioritizedVersionsForGroup(g.Name) {
		if storages, served := g.Versions[version.Version]; served {
			versions = append(versions, version)
			info.VersionedResourcesStorageMap[version.Version] = map[string]rest.Storage(storages)
		}
	}
	info.PrioritizedVersions = versions
	return info
}
