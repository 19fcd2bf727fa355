package core

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

// serviceReader gives services by name; the context carries the namespace.
type serviceReader interface {
	Read(ctx context.Context, name string) (*corev1.Service, error)
}

// endpointsReader gives Endpoints by name; the context carries the namespace.
type endpointsReader interface {
	Read(ctx context.Context, name string) (*corev1.Endpoints, error)
}

// serviceBackends finds the pods behind a service.
type serviceBackends struct {
	services  serviceReader
	endpoints endpointsReader
	pods      podReader
}

// serviceProxy hands requests on to a pod behind a service.
func serviceProxy(backends *serviceBackends, transport http.RoundTripper) rest.Storage {
	return &connection{
		methods: proxyMethods,
		options: func() runtime.Object { return &corev1.ServiceProxyOptions{} },
		path:    "path",
		open: func(ctx context.Context, id string, object runtime.Object, responder rest.Responder) (http.Handler, error) {
			options, ok := object.(*corev1.ServiceProxyOptions)
			if !ok {
				return nil, fmt.Errorf("invalid options object: %T", object)
			}
			location, err := backends.location(ctx, id)
			if err != nil {
				return nil, err
			}
			location.Path = utilnet.JoinPreservingTrailingSlash(location.Path, options.Path)
			return upgradeAware(location, transport, true, false, responder), nil
		},
	}
}

// location reads name, name:port or scheme:name:port, where port is a number or
// a name of the service's, and chooses one of the ready pods at random.
func (b *serviceBackends) location(ctx context.Context, id string) (*url.URL, error) {
	scheme, name, port, valid := utilnet.SplitSchemeNamePort(id)
	if !valid {
		return nil, errors.NewBadRequest(fmt.Sprintf("invalid service request %q", id))
	}
	if number, err := strconv.ParseInt(port, 10, 64); err == nil {
		if port, err = b.portName(ctx, name, number); err != nil {
			return nil, err
		}
	}
	endpoints, err := b.endpoints.Read(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(endpoints.Subsets) == 0 {
		return nil, errors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", name))
	}
	for _, i := range rand.Perm(len(endpoints.Subsets)) {
		subset := &endpoints.Subsets[i]
		for _, each := range subset.Ports {
			if each.Name != port {
				continue
			}
			for _, j := range rand.Perm(len(subset.Addresses)) {
				if address := &subset.Addresses[j]; b.isPod(ctx, address) {
					return &url.URL{Scheme: scheme, Host: net.JoinHostPort(address.IP, strconv.Itoa(int(each.Port)))}, nil
				}
			}
		}
	}
	return nil, errors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", id))
}

// portName is what Endpoints call the service's port with the number.
func (b *serviceBackends) portName(ctx context.Context, name string, number int64) (string, error) {
	service, err := b.services.Read(ctx, name)
	if err != nil {
		return "", err
	}
	for _, port := range service.Spec.Ports {
		if int64(port.Port) == number {
			return port.Name, nil
		}
	}
	return "", errors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", number, name))
}

// isPod keeps users who may write Endpoints from reaching, through the API
// server, what is no pod of their namespace.
func (b *serviceBackends) isPod(ctx context.Context, address *corev1.EndpointAddress) bool {
	target := address.TargetRef
	if target == nil || target.Namespace != request.NamespaceValue(ctx) {
		return false
	}
	pod, err := b.pods.Read(ctx, target.Name)
	if err != nil {
		return false
	}
	for _, own := range pod.Status.PodIPs {
		if own.IP == address.IP {
			return true
		}
	}
	return false
}
