package core

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/skiff-run/skiff/control/registry"
)

// connection is a subresource that hands a request on to somebody else: an agent, a pod, a node.
type connection struct {
	methods []string
	// options returns an empty object for the request's parameters.
	options func() runtime.Object
	// path names the parameter that takes the rest of the URL's path; empty when there is none.
	path string
	open func(ctx context.Context, name string, options runtime.Object, responder rest.Responder) (http.Handler, error)
}

var (
	proxyMethods = []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
	// Browsers open WebSockets with GET.
	streamMethods = []string{"GET", "POST"}
)

var _ rest.Connecter = (*connection)(nil)

// New implements rest.Storage.
func (c *connection) New() runtime.Object { return c.options() }

// Destroy implements rest.Storage.
func (c *connection) Destroy() {}

// ConnectMethods implements rest.Connecter.
func (c *connection) ConnectMethods() []string { return c.methods }

// NewConnectOptions implements rest.Connecter.
func (c *connection) NewConnectOptions() (runtime.Object, bool, string) {
	return c.options(), c.path != "", c.path
}

// Connect implements rest.Connecter.
func (c *connection) Connect(ctx context.Context, name string, options runtime.Object, responder rest.Responder) (http.Handler, error) {
	return c.open(ctx, name, options, responder)
}

// upgradeAware hands requests on to the location. Wrapped responses get their URLs rewritten, as
// browsers need it; streams insist on the upgrade of the connection.
func upgradeAware(location *url.URL, transport http.RoundTripper, wrap, stream bool, responder rest.Responder) http.Handler {
	return proxy.NewUpgradeAwareHandler(location, transport, wrap, stream, proxy.NewErrorResponder(responder))
}

// mayCreate makes sure that whoever opens a stream by GET may also open it by POST: the right to
// look is not the right to run a command.
func mayCreate(ctx context.Context, authorize authorizer.UnconditionalAuthorizer) error {
	info, found := request.RequestInfoFrom(ctx)
	if !found {
		return apierrors.NewInternalError(errors.New("no request info in context"))
	}
	if info.Verb == "create" {
		return nil
	}
	attributes, err := filters.GetAuthorizerAttributes(ctx)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("error building authorizer attributes: %w", err))
	}
	decision, reason, err := authorize.Authorize(ctx, asCreate{attributes})
	if err != nil {
		return err
	}
	if decision != authorizer.DecisionAllow {
		return apierrors.NewForbidden(schema.GroupResource{Group: info.APIGroup, Resource: info.Resource}, info.Name, errors.New(reason))
	}
	return nil
}

// asCreate is the same request with another verb.
type asCreate struct{ authorizer.Attributes }

// GetVerb implements authorizer.Attributes.
func (asCreate) GetVerb() string { return "create" }

// whenAsked decides by the server's authorizer, which is complete only after
// the resources are built.
type whenAsked struct{ deps *registry.Dependencies }

// Authorize implements authorizer.UnconditionalAuthorizer.
func (w whenAsked) Authorize(ctx context.Context, request authorizer.Attributes) (authorizer.Decision, string, error) {
	return w.deps.Authorizer.Authorize(ctx, request)
}
