package core

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/scheme"
)

type fakePods map[string]*corev1.Pod

func (f fakePods) Read(_ context.Context, name string) (*corev1.Pod, error) {
	if pod, found := f[name]; found {
		return pod, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
}

type fakeNodes map[string]*corev1.Node

func (f fakeNodes) Read(_ context.Context, name string) (*corev1.Node, error) {
	if node, found := f[name]; found {
		return node, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("nodes"), name)
}

// fakeAgent answers like an agent on this machine: it tells what it was asked, and echoes streams.
func fakeAgent(t *testing.T) (*agents, chan string) {
	t.Helper()
	asked := make(chan string, 1)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.String()
		if r.Header.Get("Upgrade") == "" {
			_, _ = io.WriteString(w, "a line\n")
			return
		}
		connection, buffer, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("hijack: %v", err)
			return
		}
		defer func() { _ = connection.Close() }()
		_, _ = io.WriteString(connection, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
		_, _ = io.Copy(connection, buffer)
	}))
	t.Cleanup(server.Close)
	address, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(address.Port())
	if err != nil {
		t.Fatal(err)
	}
	node := &corev1.Node{Status: corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "does.not.resolve"}, {Type: corev1.NodeInternalIP, Address: address.Hostname()}},
	}}
	return newAgents(registry.Agents{Transport: server.Client().Transport, Port: port}, fakeNodes{"n1": node}), asked
}

func somePods() fakePods {
	one := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "one"}, Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c"}}}}
	two := one.DeepCopy()
	two.Name, two.Spec.Containers = "two", append(two.Spec.Containers, corev1.Container{Name: "d"})
	two.Spec.InitContainers = []corev1.Container{{Name: "i"}}
	waiting := one.DeepCopy()
	waiting.Name, waiting.Spec.NodeName = "waiting", ""
	return fakePods{"one": one, "two": two, "waiting": waiting}
}

type allow struct{ verb string }

func (a allow) Authorize(_ context.Context, attributes authorizer.Attributes) (authorizer.Decision, string, error) {
	if attributes.GetVerb() == a.verb {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "no " + attributes.GetVerb() + " for you", nil
}

type refuser struct{ t *testing.T }

func (r refuser) Object(int, runtime.Object) { r.t.Error("the responder was given an object") }
func (r refuser) Error(err error)            { r.t.Errorf("the responder was given an error: %v", err) }

func asked(verb string) context.Context {
	return request.WithRequestInfo(context.Background(), &request.RequestInfo{IsResourceRequest: true, Verb: verb, Resource: "pods", Name: "one"})
}

func TestExecIsHandedToTheAgent(t *testing.T) {
	t.Parallel()
	reach, urls := fakeAgent(t)
	streams := &podStreams{pods: somePods(), agents: reach, authorize: allow{"create"}}
	storage := streams.exec().(rest.Connecter)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		options := &corev1.PodExecOptions{Command: []string{"echo", "a b"}, Stdin: true, Stdout: true, TTY: true}
		handler, err := storage.Connect(asked("create"), "one", options, refuser{t})
		if err != nil {
			t.Errorf("connect: %v", err)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)

	connection, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	_ = connection.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(connection, "POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
	reader := bufio.NewReader(connection)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("status is %s, want 101", response.Status)
	}
	if got, want := <-urls, "/exec/ns/one/c?command=echo&command=a+b&input=1&output=1&tty=1"; got != want {
		t.Errorf("the agent was asked for %s, want %s", got, want)
	}
	_, _ = io.WriteString(connection, "ping")
	echo := make([]byte, 4)
	if _, err := io.ReadFull(reader, echo); err != nil || string(echo) != "ping" {
		t.Errorf("the stream echoed %q, %v", echo, err)
	}
}

func TestALogIsReadFromTheAgent(t *testing.T) {
	t.Parallel()
	reach, urls := fakeAgent(t)
	log := &podLog{&podStreams{pods: somePods(), agents: reach}}
	tail := int64(5)
	object, err := log.Get(context.Background(), "two", &corev1.PodLogOptions{Container: "i", Follow: true, TailLines: &tail})
	if err != nil {
		t.Fatal(err)
	}
	stream, flush, kind, err := object.(rest.ResourceStreamer).InputStream(context.Background(), "v1", "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	text, err := io.ReadAll(stream)
	if err != nil || string(text) != "a line\n" || !flush || kind != "text/plain" {
		t.Errorf("log is %q, %v; flush %v, type %s", text, err, flush, kind)
	}
	if got, want := <-urls, "/containerLogs/ns/two/i?follow=true&tailLines=5"; got != want {
		t.Errorf("the agent was asked for %s, want %s", got, want)
	}
}

func TestStreamsThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	streams := &podStreams{pods: somePods(), agents: &agents{nodes: fakeNodes{}}, authorize: allow{"create"}}
	exec, forward, log := streams.exec().(rest.Connecter), streams.portForward().(rest.Connecter), &podLog{streams}
	negative := int64(-1)
	open := func(storage rest.Connecter, name string, options runtime.Object) func() error {
		return func() error {
			_, err := storage.Connect(asked("create"), name, options, refuser{t})
			return err
		}
	}
	read := func(name string, options *corev1.PodLogOptions) func() error {
		return func() error {
			_, err := log.Get(context.Background(), name, options)
			return err
		}
	}
	for _, c := range []struct {
		name string
		open func() error
		want string
	}{
		{"the pod is not there", open(exec, "none", &corev1.PodExecOptions{}), `pods "none" not found`},
		{"the pod has several containers", open(exec, "two", &corev1.PodExecOptions{}), "a container name must be specified for pod two, choose one of: [i c d]"},
		{"the container is not the pod's", open(exec, "two", &corev1.PodExecOptions{Container: "x"}), "container x is not valid for pod two"},
		{"the pod has no node", open(exec, "waiting", &corev1.PodExecOptions{}), "pod waiting does not have a host assigned"},
		{"the pod to forward to has no node", open(forward, "waiting", &corev1.PodPortForwardOptions{}), "pod waiting does not have a host assigned"},
		{"the node is not there", open(exec, "one", &corev1.PodExecOptions{}), `nodes "n1" not found`},
		{"the log's options are wrong", read("one", &corev1.PodLogOptions{TailLines: &negative}), `PodLogOptions "one" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0`},
		{"the log is of no container of the pod", read("one", &corev1.PodLogOptions{Container: "x"}), "container x is not valid for pod one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := c.open()
			var status apierrors.APIStatus
			if !errors.As(err, &status) || err.Error() != c.want {
				t.Errorf("error is %v (%T), want the status %q", err, err, c.want)
			}
		})
	}
}

func TestTheLogOfAPodThatWaitsIsEmpty(t *testing.T) {
	t.Parallel()
	object, err := (&podLog{&podStreams{pods: somePods()}}).Get(context.Background(), "waiting", &corev1.PodLogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stream, _, _, err := object.(rest.ResourceStreamer).InputStream(context.Background(), "v1", "")
	if err != nil || stream != nil {
		t.Errorf("stream is %v, %v; want none", stream, err)
	}
}

func TestWhoMayOnlyLookMayNotExec(t *testing.T) {
	t.Parallel()
	streams := &podStreams{pods: somePods(), agents: &agents{}, authorize: allow{"get"}}
	for _, storage := range []rest.Storage{streams.exec(), streams.attach(), streams.portForward()} {
		_, err := storage.(rest.Connecter).Connect(asked("get"), "one", storage.New(), refuser{t})
		if !apierrors.IsForbidden(err) {
			t.Errorf("%T: error is %v, want Forbidden", storage.New(), err)
		}
	}
}

func TestProxiedPods(t *testing.T) {
	t.Parallel()
	pod := func(address string, ports ...int32) *corev1.Pod {
		p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{}, {}}}, Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: address}}}}
		for _, port := range ports {
			p.Spec.Containers[1].Ports = append(p.Spec.Containers[1].Ports, corev1.ContainerPort{ContainerPort: port})
		}
		return p
	}
	pods := fakePods{"four": pod("10.0.0.1"), "six": pod("fd00::1"), "web": pod("10.0.0.2", 8080, 9090), "loop": pod("127.0.0.1", 80), "waiting": {}}
	for id, want := range map[string]string{
		"four": "//10.0.0.1", "six": "//[fd00::1]", "six:80": "//[fd00::1]:80", "web": "//10.0.0.2:8080",
		"https:web:443": "https://10.0.0.2:443", "http:web:": "http://10.0.0.2:8080",
		"loop": "address not allowed", "waiting": "address not allowed", "a:b:c:d": `invalid pod request "a:b:c:d"`,
	} {
		location, err := podLocation(context.Background(), pods, id)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = location.String()
		}
		if got != want {
			t.Errorf("location of %q is %s, want %s", id, got, want)
		}
	}
}

func TestAnAgentIsFoundByItsNode(t *testing.T) {
	t.Parallel()
	addresses := []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "n"}, {Type: corev1.NodeExternalIP, Address: "5.6.7.8"}, {Type: corev1.NodeInternalIP, Address: "1.2.3.4"}}
	nodes := fakeNodes{
		"usual": {Status: corev1.NodeStatus{Addresses: addresses}},
		"own":   {Status: corev1.NodeStatus{Addresses: addresses[:2], DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: 10255}}, DeclaredFeatures: []string{webSocketFeature}}},
		"none":  {},
	}
	reach := newAgents(registry.Agents{Port: 10250}, nodes)
	for name, want := range map[string]agent{
		"usual": {host: "1.2.3.4", port: "10250"},
		"own":   {host: "5.6.7.8", port: "10255", webSockets: true},
	} {
		got, err := reach.of(context.Background(), name)
		if err != nil || got != want {
			t.Errorf("agent of %s is %+v, %v; want %+v", name, got, err, want)
		}
	}
	if _, err := reach.of(context.Background(), "none"); err == nil {
		t.Error("a node without addresses has an agent")
	}
}

func TestParametersOfConnections(t *testing.T) {
	t.Parallel()
	s, err := scheme.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := addParameters(s.Scheme); err != nil {
		t.Fatal(err)
	}
	decode := func(query string, into runtime.Object) {
		t.Helper()
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.ParameterCodec.DecodeParameters(values, corev1.SchemeGroupVersion, into); err != nil {
			t.Errorf("decode %s: %v", query, err)
		}
	}
	log, seconds, since := &corev1.PodLogOptions{}, int64(5), metav1.NewTime(noon)
	decode("container=c&follow=true&previous=false&sinceSeconds=5&sinceTime=2026-01-01T12:00:00Z&unknown=1", log)
	log.SinceTime.Time = log.SinceTime.UTC()
	if diff := cmp.Diff(&corev1.PodLogOptions{Container: "c", Follow: true, SinceSeconds: &seconds, SinceTime: &since}, log); diff != "" {
		t.Errorf("log options (-want +got):\n%s", diff)
	}
	exec := &corev1.PodExecOptions{}
	decode("command=ls&command=-l&stdout=1&tty=true&container=c", exec)
	if diff := cmp.Diff(&corev1.PodExecOptions{Stdout: true, TTY: true, Container: "c", Command: []string{"ls", "-l"}}, exec); diff != "" {
		t.Errorf("exec options (-want +got):\n%s", diff)
	}
	forward := &corev1.PodPortForwardOptions{}
	decode("ports=80&ports=8080", forward)
	if diff := cmp.Diff([]int32{80, 8080}, forward.Ports); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
	proxied := &corev1.PodProxyOptions{}
	decode("path=/a/b", proxied)
	if proxied.Path != "/a/b" {
		t.Errorf("path is %q", proxied.Path)
	}
	bad := s.ParameterCodec.DecodeParameters(url.Values{"tailLines": {"many"}}, corev1.SchemeGroupVersion, &corev1.PodLogOptions{})
	if bad == nil {
		t.Error("a number of many lines was read")
	}
}
