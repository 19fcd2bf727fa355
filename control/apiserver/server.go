package apiserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"

	"github.com/skiff-run/skiff/control/admission"
	authrbac "github.com/skiff-run/skiff/control/auth/rbac"
	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/apps"
	"github.com/skiff-run/skiff/control/registry/authentication"
	"github.com/skiff-run/skiff/control/registry/authorization"
	"github.com/skiff-run/skiff/control/registry/certificates"
	"github.com/skiff-run/skiff/control/registry/coordination"
	"github.com/skiff-run/skiff/control/registry/core"
	"github.com/skiff-run/skiff/control/registry/discovery"
	"github.com/skiff-run/skiff/control/registry/events"
	"github.com/skiff-run/skiff/control/registry/metrics"
	"github.com/skiff-run/skiff/control/registry/networking"
	"github.com/skiff-run/skiff/control/registry/node"
	"github.com/skiff-run/skiff/control/registry/rbac"
	"github.com/skiff-run/skiff/control/registry/scheduling"
	"github.com/skiff-run/skiff/control/registry/scheme"
	storageregistry "github.com/skiff-run/skiff/control/registry/storage"
	"github.com/skiff-run/skiff/control/storage"
	"github.com/skiff-run/skiff/control/storage/cached"
	"github.com/skiff-run/skiff/raftstore"
)

// shutdownLimit is how long connections may stay when the server stops and
// everything on them has ended.
const shutdownLimit = 2 * time.Second

// Config of an API server.
type Config struct {
	Store  *raftstore.Store
	Logger *slog.Logger
	// PKIDir holds the certificates and keys under kubeadm's names.
	PKIDir string
	// Listener takes the connections; the server closes it.
	Listener net.Listener
	// AdvertiseAddress and AdvertisePort are where pods find the API behind the
	// service kubernetes.
	AdvertiseAddress netip.Addr
	AdvertisePort    int

	ServiceCIDR   netip.Prefix
	NodePorts     utilnet.PortRange
	ClusterDomain string
	AgentPort     int
	// Components are health checks shown as componentstatuses, beside the store's own.
	Components map[string]func(context.Context) error
	// EncryptionConfig is a file with an EncryptionConfiguration; empty: objects
	// are stored in plain.
	EncryptionConfig string
	// DetectMutations ends the server when a shared object is changed. It doubles
	// the memory of objects and is for tests.
	DetectMutations bool
}

// DNSAddress is the tenth address of the service range, where cluster DNS is.
func (c *Config) DNSAddress() netip.Addr {
	address := c.ServiceCIDR.Masked().Addr()
	for range 10 {
		address = address.Next()
	}
	return address
}

// Server is an API server. Its methods are safe for concurrent use.
type Server struct {
	config       Config
	generic      *genericapiserver.GenericAPIServer
	identities   *identities
	informers    informers.SharedInformerFactory
	client       kubernetes.Interface
	background   []func(context.Context)
	encryption   *storage.Encryption // nil: none
	descriptions *descriptions       // nil until configured
	hub          *cached.Hub
	roles        authrbac.Source
	mutated      chan error // the first mutation of a shared object
	types        map[reflect.Type]bool
	sources      []source
	chain        atomic.Pointer[http.Handler]
	// serving ends when the server begins to stop.
	serving     context.Context
	stopServing context.CancelFunc
	// complete is closed once the objects every cluster has are there and the
	// authorizer knows its roles.
	complete chan struct{}
	// routed is closed once every path has its handler: a path that has none then
	// does not exist.
	routed chan struct{}
}

// handler is the whole handler chain; before the server is complete it answers 503.
func (s *Server) handler() http.Handler {
	if chain := s.chain.Load(); chain != nil {
		return *chain
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the API server is starting", http.StatusServiceUnavailable)
	})
}

// Handle serves everything below the prefix, which ends with a slash, by the
// handler, behind the server's authentication and authorization. It is called
// before Run.
func (s *Server) Handle(prefix string, handler http.Handler) {
	s.generic.Handler.NonGoRestfulMux.UnlistedHandlePrefix(prefix, handler)
}

// Client acts as the API server itself, in the privileged group.
func (s *Server) Client() kubernetes.Interface { return s.client }

// New assembles a server; Run serves it.
func New(config Config) (*Server, error) {
	s := &Server{config: config, types: map[reflect.Type]bool{}, complete: make(chan struct{}), routed: make(chan struct{})}
	s.serving, s.stopServing = context.WithCancel(context.Background())
	if err := s.assemble(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// close gives back what New has opened.
func (s *Server) close() {
	if s.encryption != nil {
		s.encryption.Close()
	}
	if s.descriptions != nil {
		s.descriptions.drop()
	}
}

// assemble builds the parts in order.
func (s *Server) assemble() error {
	config := s.config
	types, err := scheme.New()
	if err != nil {
		return fmt.Errorf("make scheme: %w", err)
	}
	issuer := "https://kubernetes.default.svc." + config.ClusterDomain
	if s.identities, err = loadIdentities(config.PKIDir, issuer); err != nil {
		return err
	}
	if s.client, err = kubernetes.NewForConfig(s.ClientFor(apiserverUser())); err != nil {
		return fmt.Errorf("make in-process client: %w", err)
	}
	s.hub = cached.NewHub(config.Store)
	if config.DetectMutations {
		s.detectMutations()
	}
	options := &storage.Options{
		Store: config.Store, Hub: s.hub, Scheme: types.Scheme, Codecs: types.Codecs,
		Uncached: map[schema.GroupResource]bool{{Resource: "events"}: true, {Resource: "rangeallocations"}: true},
	}
	if config.EncryptionConfig != "" {
		if s.encryption, err = storage.LoadEncryption(config.EncryptionConfig, config.Store.Status().MemberID, config.Logger); err != nil {
			return err
		}
		options.Transformers = s.encryption.Transformer
	}
	agents, err := s.agents()
	if err != nil {
		return err
	}
	deps := &registry.Dependencies{
		Scheme: types, RESTOptions: options, ServiceCIDR: config.ServiceCIDR, NodePorts: config.NodePorts,
		DNSAddress: config.DNSAddress(), ClusterDomain: config.ClusterDomain, Agents: agents,
		Tokens: s.identities.issuer, Audiences: []string{issuer}, Components: config.Components,
	}
	groups, err := build(deps)
	if err != nil {
		return err
	}
	for _, group := range groups {
		for _, storages := range group.Versions {
			s.collect(storages)
		}
	}
	s.informers = s.InformerFactory(s.client)
	authorizer, roles, err := newAuthorizer(s.informers)
	if err != nil {
		return err
	}
	s.roles = roles.Source()
	deps.Authorizer, deps.RBAC, deps.Rules = authorizer, roles, roles
	if deps.Authenticator, err = s.identities.authenticator(deps.Audiences, objects{groups[0].Versions["v1"]}); err != nil {
		return err
	}
	generic, err := s.configure(types, deps)
	if err != nil {
		return err
	}
	if generic.AdmissionControl, err = admission.Chain(admission.Config{Client: s.client, Informers: s.informers, Authorizer: authorizer}); err != nil {
		return fmt.Errorf("make admission chain: %w", err)
	}
	if s.generic, err = generic.Complete(s.informers).New("skiff", genericapiserver.NewEmptyDelegate()); err != nil {
		return fmt.Errorf("assemble server: %w", err)
	}
	s.generic.ShutdownTimeout = shutdownLimit
	s.background = deps.Background
	return s.install(types, groups)
}

// build makes the resources. The core group is first.
func build(deps *registry.Dependencies) ([]registry.Group, error) {
	first, err := core.Group(deps)
	if err != nil {
		return nil, err
	}
	groups := []registry.Group{first}
	for _, make := range []func(*registry.Dependencies) (registry.Group, error){
		apps.Group, coordination.Group, discovery.Group, networking.Group, node.Group, rbac.Group, scheduling.Group, authentication.Group, authorization.Group, certificates.Group,
		storageregistry.Group,
		func(deps *registry.Dependencies) (registry.Group, error) {
			return events.Group(deps, first.Versions["v1"]["events"])
		},
		func(deps *registry.Dependencies) (registry.Group, error) {
			return metrics.Group(deps, first.Versions["v1"])
		},
	} {
		group, err := make(deps)
		if err != nil {
			return nil, err
		}
		groups = append(groups, group)
	}
	return groups, nil
}

// configure fills the generic server's configuration.
func (s *Server) configure(types *scheme.Scheme, deps *registry.Dependencies) (*genericapiserver.Config, error) {
	c := genericapiserver.NewConfig(types.Codecs)
	c.EffectiveVersion = compatibility.DefaultBuildEffectiveVersion()
	c.SecureServing = &genericapiserver.SecureServingInfo{
		Listener: s.config.Listener, Cert: s.identities.serving, MinTLSVersion: tls.VersionTLS12, HTTP2MaxStreamsPerConnection: 1000,
	}
	if err := c.Authentication.ApplyClientCert(s.identities.clientCA, c.SecureServing); err != nil {
		return nil, fmt.Errorf("trust client CA: %w", err)
	}
	if err := c.Authentication.ApplyClientCert(s.identities.frontProxyCA, c.SecureServing); err != nil {
		return nil, fmt.Errorf("trust front proxy CA: %w", err)
	}
	c.Authentication.Authenticator, c.Authentication.APIAudiences = deps.Authenticator, deps.Audiences
	c.Authentication.RequestHeaderConfig = s.identities.requestHeader
	c.Authorization.Authorizer, c.RuleResolver = patient{deps.Authorizer, s.complete}, deps.Rules
	c.LoopbackClientConfig = s.ClientFor(apiserverUser())
	c.PublicAddress = s.config.AdvertiseAddress.AsSlice()
	c.ExternalAddress = net.JoinHostPort(s.config.AdvertiseAddress.String(), fmt.Sprint(s.config.AdvertisePort))
	c.RESTOptionsGetter = deps.RESTOptions
	c.LongRunningFunc = longRunning
	c.BuildHandlerChainFunc = s.handlerChain
	c.ShutdownDelayDuration = 0
	c.EnableContentionProfiling = false

	if err := s.describe(c, types); err != nil {
		return nil, err
	}
	c.ReadyzChecks = append(c.ReadyzChecks, check("etcd", s.config.Store.Health), check("bootstrap", func(context.Context) error {
		select {
		case <-s.complete:
			return nil
		default:
			return errors.New("the objects every cluster has are not there yet")
		}
	}))
	c.HealthzChecks = append(c.HealthzChecks, check("etcd", s.config.Store.Health))
	c.LivezChecks = append(c.LivezChecks, check("etcd", s.config.Store.Health))
	if s.encryption != nil {
		c.ReadyzChecks, c.HealthzChecks = append(c.ReadyzChecks, s.encryption.Check), append(c.HealthzChecks, s.encryption.Check)
	}
	return c, nil
}

// check is a health check with a limit of two seconds, as upstream's of etcd.
func check(name string, healthy func(context.Context) error) healthz.HealthChecker {
	return healthz.NamedCheck(name, func(r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		return healthy(ctx)
	})
}

func (s *Server) install(types *scheme.Scheme, groups []registry.Group) error {
	first := groups[0].Info(types)
	if err := s.generic.InstallLegacyAPIGroup(genericapiserver.DefaultLegacyAPIPrefix, &first); err != nil {
		return fmt.Errorf("install core group: %w", err)
	}
	// The generic server keeps each group's information for its end: only the
	// description of its types, which is in the schemas of server-side apply now,
	// is large.
	first.StaticOpenAPISpec = nil
	for _, group := range groups[1:] {
		info := group.Info(types)
		if err := s.generic.InstallAPIGroup(&info); err != nil {
			return fmt.Errorf("install group %s: %w", group.Name, err)
		}
		info.StaticOpenAPISpec = nil
	}
	s.descriptions.publish(s.generic.Handler.NonGoRestfulMux)
	s.installIssuerDiscovery()
	return nil
}

// Run serves until ctx ends and drains requests then.
func (s *Server) Run(ctx context.Context) error {
	ctx, end := context.WithCancelCause(ctx)
	defer s.close()
	defer end(nil)
	defer s.stopServing()
	context.AfterFunc(ctx, s.stopServing)
	s.identities.reload(ctx)
	prepared := s.generic.PrepareRun()
	close(s.routed)
	chain := http.Handler(s.generic.Handler)
	s.chain.Store(&chain)
	s.informers.StartWithContext(ctx)
	var loops sync.WaitGroup
	loops.Go(func() {
		if s.bootstrap(ctx); ctx.Err() == nil {
			s.publish(ctx)
		}
	})
	for _, loop := range s.background {
		loops.Go(func() { loop(ctx) })
	}
	if s.encryption != nil {
		loops.Go(func() { s.encryption.Run(ctx) })
	}
	if s.config.DetectMutations {
		loops.Go(func() { s.checkMutations(ctx, end) })
	}
	err := prepared.RunWithContext(ctx)
	loops.Wait()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = errors.Join(err, cause)
	}
	return err
}
