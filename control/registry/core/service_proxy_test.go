package core

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

type fakeServices map[string]*corev1.Service

func (f fakeServices) Read(_ context.Context, name string) (*corev1.Service, error) {
	if service, found := f[name]; found {
		return service, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("services"), name)
}

type fakeEndpoints map[string]*corev1.Endpoints

func (f fakeEndpoints) Read(_ context.Context, name string) (*corev1.Endpoints, error) {
	if endpoints, found := f[name]; found {
		return endpoints, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("endpoints"), name)
}

func backend(ip, namespace, pod string) corev1.EndpointAddress {
	return corev1.EndpointAddress{IP: ip, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: pod}}
}

func podAt(ip string) *corev1.Pod {
	return &corev1.Pod{Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: ip}}}}
}

func inNamespace(name string) context.Context {
	return request.WithNamespace(context.Background(), name)
}

func TestServicesAreProxiedToTheirPods(t *testing.T) {
	t.Parallel()
	web := &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}, {Name: "admin", Port: 8443}}}}
	plain := &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	ports := []corev1.EndpointPort{{Name: "http", Port: 8080}, {Name: "admin", Port: 9443}}
	b := &serviceBackends{
		services: fakeServices{"web": web, "plain": plain, "empty": plain, "waiting": plain, "astray": plain, "elsewhere": plain, "gone": plain, "moved": plain},
		endpoints: fakeEndpoints{
			"web": {Subsets: []corev1.EndpointSubset{
				{NotReadyAddresses: []corev1.EndpointAddress{backend("10.0.0.9", "ns", "one")}, Ports: ports},
				{Addresses: []corev1.EndpointAddress{{IP: "10.0.0.8"}, backend("10.0.0.1", "ns", "one")}, Ports: ports},
			}},
			"plain":     {Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{backend("fd00::1", "ns", "six")}, Ports: []corev1.EndpointPort{{Port: 8080}}}}},
			"empty":     {},
			"astray":    {Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "127.0.0.1"}}, Ports: []corev1.EndpointPort{{Port: 6443}}}}},
			"elsewhere": {Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{backend("10.0.0.1", "other", "one")}, Ports: []corev1.EndpointPort{{Port: 80}}}}},
			"gone":      {Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{backend("10.0.0.1", "ns", "none")}, Ports: []corev1.EndpointPort{{Port: 80}}}}},
			"moved":     {Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{backend("169.254.169.254", "ns", "one")}, Ports: []corev1.EndpointPort{{Port: 80}}}}},
		},
		pods: fakePods{"one": podAt("10.0.0.1"), "six": podAt("fd00::1")},
	}
	for _, c := range []struct{ name, id, want string }{
		{"a port by its number", "web:80", "//10.0.0.1:8080"},
		{"a port by its name", "web:admin", "//10.0.0.1:9443"},
		{"with a scheme", "https:web:8443", "https://10.0.0.1:9443"},
		{"the only port needs no name", "plain", "//[fd00::1]:8080"},
		{"a scheme and no port", "http:plain:", "http://[fd00::1]:8080"},
		{"the only port by its number", "plain:80", "//[fd00::1]:8080"},
		{"too many parts", "a:b:c:d", `400 invalid service request "a:b:c:d"`},
		{"no such port number", "web:81", `503 no service port 81 found for service "web"`},
		{"no such port name", "web:x", `503 no endpoints available for service "web:x"`},
		{"a port with a name has to be named", "web", `503 no endpoints available for service "web"`},
		{"no such service by number", "none:80", `404 services "none" not found`},
		{"no such service by name", "none:http", `404 endpoints "none" not found`},
		{"no pods", "empty:80", `503 no endpoints available for service "empty"`},
		{"no pod behind an address", "astray:80", `503 no endpoints available for service "astray:80"`},
		{"a pod of another namespace", "elsewhere:80", `503 no endpoints available for service "elsewhere:80"`},
		{"a pod that is gone", "gone:80", `503 no endpoints available for service "gone:80"`},
		{"an address that is not the pod's", "moved:80", `503 no endpoints available for service "moved:80"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := ""
			location, err := b.location(inNamespace("ns"), c.id)
			var status apierrors.APIStatus
			switch {
			case errors.As(err, &status):
				got = strconv.Itoa(int(status.Status().Code)) + " " + err.Error()
			case err != nil:
				t.Fatalf("%v is no API status", err)
			default:
				got = location.String()
			}
			if got != c.want {
				t.Errorf("location of %q is %s, want %s", c.id, got, c.want)
			}
		})
	}
}

func TestARequestToAServiceReachesAPodWithItsPath(t *testing.T) {
	t.Parallel()
	pod := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, r.Method+" "+r.URL.RequestURI()+" "+string(body))
	}))
	t.Cleanup(pod.Close)
	host, port, err := net.SplitHostPort(pod.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	storage := serviceProxy(&serviceBackends{
		services: fakeServices{"web": {Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}},
		endpoints: fakeEndpoints{"web": {Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{backend(host, "ns", "one")}, Ports: []corev1.EndpointPort{{Name: "http", Port: int32(number)}},
		}}}},
		pods: fakePods{"one": podAt(host)},
	}, proxyTransport()).(rest.Connecter)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler, err := storage.Connect(inNamespace("ns"), "web:80", &corev1.ServiceProxyOptions{Path: "a/b/"}, refuser{t})
		if err != nil {
			t.Errorf("connect: %v", err)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	wanted, err := http.NewRequest(http.MethodPut, server.URL+"/a/b/?c=d", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(wanted)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if text, err := io.ReadAll(response.Body); err != nil || string(text) != "PUT /a/b/?c=d " {
		t.Errorf("the pod was asked for %q, %v", text, err)
	}
}
