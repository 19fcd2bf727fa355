package core

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/registry/rest"
	streamproxy "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
	netutils "k8s.io/utils/net"

	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

// podReader gives pods by name; the context carries the namespace.
type podReader interface {
	Read(ctx context.Context, name string) (*corev1.Pod, error)
}

// podStreams opens streams into pods through the agents of their nodes.
type podStreams struct {
	pods      podReader
	agents    *agents
	authorize authorizer.UnconditionalAuthorizer
}

func (s *podStreams) exec() rest.Storage {
	return &connection{
		methods: streamMethods,
		options: func() runtime.Object { return &corev1.PodExecOptions{} },
		open: func(ctx context.Context, name string, object runtime.Object, responder rest.Responder) (http.Handler, error) {
			options, ok := object.(*corev1.PodExecOptions)
			if !ok {
				return nil, fmt.Errorf("invalid options object: %T", object)
			}
			streams := streamproxy.Options{Stdin: options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr, Tty: options.TTY}
			parameters := streamParameters(streams)
			parameters["command"] = options.Command
			return s.terminal(ctx, "exec", name, options.Container, streams, parameters, responder)
		},
	}
}

func (s *podStreams) attach() rest.Storage {
	return &connection{
		methods: streamMethods,
		options: func() runtime.Object { return &corev1.PodAttachOptions{} },
		open: func(ctx context.Context, name string, object runtime.Object, responder rest.Responder) (http.Handler, error) {
			options, ok := object.(*corev1.PodAttachOptions)
			if !ok {
				return nil, fmt.Errorf("invalid options object: %T", object)
			}
			streams := streamproxy.Options{Stdin: options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr, Tty: options.TTY}
			return s.terminal(ctx, "attach", name, options.Container, streams, streamParameters(streams), responder)
		},
	}
}

func streamParameters(streams streamproxy.Options) url.Values {
	parameters := url.Values{}
	for name, set := range map[string]bool{
		corev1.ExecStdinParam: streams.Stdin, corev1.ExecStdoutParam: streams.Stdout, corev1.ExecStderrParam: streams.Stderr, corev1.ExecTTYParam: streams.Tty,
	} {
		if set {
			parameters.Set(name, "1")
		}
	}
	return parameters
}

// terminal opens the streams of a container's process. SPDY goes through as it is; WebSockets are
// translated here unless the agent speaks them.
func (s *podStreams) terminal(ctx context.Context, verb, name, container string, streams streamproxy.Options, parameters url.Values, responder rest.Responder) (http.Handler, error) {
	if err := mayCreate(ctx, s.authorize); err != nil {
		return nil, err
	}
	pod, err := s.pods.Read(ctx, name)
	if err != nil {
		return nil, err
	}
	if container, err = chooseContainer(pod, container); err != nil {
		return nil, err
	}
	location, agent, err := s.location(ctx, pod, parameters, verb, pod.Namespace, pod.Name, container)
	if err != nil {
		return nil, err
	}
	direct := upgradeAware(location, s.agents.transport, false, true, responder)
	if agent.webSockets {
		return direct, nil
	}
	translated := streamproxy.NewStreamTranslatorHandler(location, s.agents.transport, 0, streams)
	return streamproxy.NewTranslatingHandler(direct, translated, wsstream.IsWebSocketRequestWithStreamCloseProtocol), nil
}

func (s *podStreams) portForward() rest.Storage {
	return &connection{
		methods: streamMethods,
		options: func() runtime.Object { return &corev1.PodPortForwardOptions{} },
		open: func(ctx context.Context, name string, object runtime.Object, responder rest.Responder) (http.Handler, error) {
			options, ok := object.(*corev1.PodPortForwardOptions)
			if !ok {
				return nil, fmt.Errorf("invalid options object: %T", object)
			}
			if err := mayCreate(ctx, s.authorize); err != nil {
				return nil, err
			}
			pod, err := s.pods.Read(ctx, name)
			if err != nil {
				return nil, err
			}
			parameters := url.Values{}
			if len(options.Ports) > 0 {
				var ports []string
				for _, port := range options.Ports {
					ports = append(ports, strconv.Itoa(int(port)))
				}
				parameters.Set(corev1.PortHeader, strings.Join(ports, ","))
			}
			location, agent, err := s.location(ctx, pod, parameters, "portForward", pod.Namespace, pod.Name)
			if err != nil {
				return nil, err
			}
			direct := upgradeAware(location, s.agents.transport, false, true, responder)
			if agent.webSockets {
				return direct, nil
			}
			tunnel := streamproxy.NewTunnelingHandler(direct)
			return streamproxy.NewTranslatingHandler(direct, tunnel, wsstream.IsWebSocketRequestWithTunnelingProtocol), nil
		},
	}
}

// location is the agent's endpoint for the pod, with the elements of its path.
func (s *podStreams) location(ctx context.Context, pod *corev1.Pod, parameters url.Values, path ...string) (*url.URL, agent, error) {
	if pod.Spec.NodeName == "" {
		return nil, agent{}, errors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.Name))
	}
	agent, err := s.agents.of(ctx, pod.Spec.NodeName)
	if err != nil {
		return nil, agent, err
	}
	return &url.URL{
		Scheme: "https", Host: agent.address(), Path: "/" + strings.Join(path, "/"), RawQuery: parameters.Encode(),
	}, agent, nil
}

// chooseContainer makes sure the container is one of the pod's, and knows the only one by itself.
func chooseContainer(pod *corev1.Pod, name string) (string, error) {
	names := podspec.ContainerNames(&pod.Spec)
	if name != "" {
		if !slices.Contains(names, name) {
			return "", errors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
		}
		return name, nil
	}
	switch len(pod.Spec.Containers) {
	case 0:
		return "", errors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s", pod.Name))
	case 1:
		return pod.Spec.Containers[0].Name, nil
	default:
		return "", errors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s, choose one of: %s", pod.Name, names))
	}
}

// podProxy hands requests on to a pod's port.
func podProxy(pods podReader, transport http.RoundTripper) rest.Storage {
	return &connection{
		methods: proxyMethods,
		options: func() runtime.Object { return &corev1.PodProxyOptions{} },
		path:    "path",
		open: func(ctx context.Context, id string, object runtime.Object, responder rest.Responder) (http.Handler, error) {
			options, ok := object.(*corev1.PodProxyOptions)
			if !ok {
				return nil, fmt.Errorf("invalid options object: %T", object)
			}
			location, err := podLocation(ctx, pods, id)
			if err != nil {
				return nil, err
			}
			location.Path = utilnet.JoinPreservingTrailingSlash(location.Path, options.Path)
			return upgradeAware(location, transport, true, false, responder), nil
		},
	}
}

// podLocation reads name, name:port or scheme:name:port. Without a port it is the first that a
// container declares.
func podLocation(ctx context.Context, pods podReader, id string) (*url.URL, error) {
	scheme, name, port, valid := utilnet.SplitSchemeNamePort(id)
	if !valid {
		return nil, errors.NewBadRequest(fmt.Sprintf("invalid pod request %q", id))
	}
	pod, err := pods.Read(ctx, name)
	if err != nil {
		return nil, err
	}
	for i := range pod.Spec.Containers {
		if ports := pod.Spec.Containers[i].Ports; port == "" && len(ports) > 0 {
			port = strconv.Itoa(int(ports[0].ContainerPort))
		}
	}
	address := ""
	if len(pod.Status.PodIPs) > 0 {
		address = pod.Status.PodIPs[0].IP
	}
	// Loopback and link-local addresses are the API server's own neighbourhood.
	if ip := netutils.ParseIPSloppy(address); ip == nil || !ip.IsGlobalUnicast() {
		return nil, errors.NewBadRequest("address not allowed")
	}
	host := address
	if port != "" {
		host = net.JoinHostPort(address, port)
	} else if strings.Contains(address, ":") {
		host = "[" + address + "]"
	}
	return &url.URL{Scheme: scheme, Host: host}, nil
}
