package bundle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"github.com/skiff-run/skiff/cmd/skiff/join"
)

// ownNamespaces are those whose states are taken unless all are.
var ownNamespaces = []string{metav1.NamespaceSystem, metav1.NamespacePublic, metav1.NamespaceDefault, corev1.NamespaceNodeLease}

// administrator is who is asked for the cluster's state. While the store does not
// answer, roles cannot be read: then it is one whom this machine vouches for.
func (o Options) administrator(ctx context.Context) (*join.Administrator, error) {
	if o.Kubeconfig != "" {
		return join.NewAdministrator(o.Kubeconfig)
	}
	administrator, err := join.NewAdministrator(o.AdminKubeconfig(), o.Servers()...)
	if err != nil {
		return nil, err
	}
	if _, err := administrator.Status(ctx); apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		if emergency, err := administrator.Emergency(o.Layout); err == nil {
			return emergency, nil
		}
	}
	return administrator, nil
}

// cluster are the parts that the API tells.
func (o Options) cluster(find func(context.Context) (*join.Administrator, error)) []part {
	administrator := sync.OnceValues(func() (*join.Administrator, error) {
		ctx, cancel := context.WithTimeout(context.Background(), partLimit/2)
		defer cancel()
		return find(ctx)
	})
	raw := func(name, path string) part {
		return part{name, func(ctx context.Context) ([]byte, error) {
			a, err := administrator()
			if err != nil {
				return nil, err
			}
			path, parameters, _ := strings.Cut(path, "?")
			request := a.Client.CoreV1().RESTClient().Get().AbsPath(path)
			if key, value, ok := strings.Cut(parameters, "="); ok {
				request = request.Param(key, value)
			}
			return request.DoRaw(ctx)
		}}
	}
	parts := []part{
		{"cluster/status.json", func(ctx context.Context) ([]byte, error) {
			a, err := administrator()
			if err != nil {
				return nil, err
			}
			survey, err := a.LookAround(ctx)
			return indented(survey, err)
		}},
		raw("cluster/health.txt", "/readyz?verbose=true"), raw("cluster/version.json", "/version"),
		raw("daemons/control-metrics.txt", "/metrics"),
		raw("daemons/control-goroutines.txt", "/debug/pprof/goroutine?debug=1"), raw("daemons/control-heap.txt", "/debug/pprof/heap?debug=1"),
	}
	if name, err := o.NodeName(); err == nil {
		node := "/api/v1/nodes/" + name + "/proxy"
		parts = append(parts, raw("daemons/agent-metrics.txt", node+"/metrics"),
			raw("daemons/agent-goroutines.txt", node+"/debug/pprof/goroutine?debug=1"), raw("daemons/agent-heap.txt", node+"/debug/pprof/heap?debug=1"))
	}
	for _, list := range lists {
		parts = append(parts, part{"cluster/" + list.name + ".json", func(ctx context.Context) ([]byte, error) {
			a, err := administrator()
			if err != nil {
				return nil, err
			}
			return o.list(ctx, a.Client, list.read, list.namespaced)
		}})
	}
	return parts
}

// reader lists objects of one kind in a namespace, or of all.
type reader func(ctx context.Context, client kubernetes.Interface, namespace string) (runtime.Object, error)

// lists are the kinds whose states are taken. Secrets and ConfigMaps are none.
var lists = []struct {
	name       string
	namespaced bool
	read       reader
}{
	{"nodes", false, func(ctx context.Context, c kubernetes.Interface, _ string) (runtime.Object, error) {
		return c.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	}},
	{"namespaces", false, func(ctx context.Context, c kubernetes.Interface, _ string) (runtime.Object, error) {
		return c.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	}},
	{"persistentvolumes", false, func(ctx context.Context, c kubernetes.Interface, _ string) (runtime.Object, error) {
		return c.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	}},
	{"pods", true, func(ctx context.Context, c kubernetes.Interface, n string) (runtime.Object, error) {
		return c.CoreV1().Pods(n).List(ctx, metav1.ListOptions{})
	}},
	{"services", true, func(ctx context.Context, c kubernetes.Interface, n string) (runtime.Object, error) {
		return c.CoreV1().Services(n).List(ctx, metav1.ListOptions{})
	}},
	{"endpointslices", true, func(ctx context.Context, c kubernetes.Interface, n string) (runtime.Object, error) {
		return c.DiscoveryV1().EndpointSlices(n).List(ctx, metav1.ListOptions{})
	}},
	{"events", true, func(ctx context.Context, c kubernetes.Interface, n string) (runtime.Object, error) {
		return c.CoreV1().Events(n).List(ctx, metav1.ListOptions{})
	}},
	{"leases", true, func(ctx context.Context, c kubernetes.Interface, n string) (runtime.Object, error) {
		return c.CoordinationV1().Leases(n).List(ctx, metav1.ListOptions{})
	}},
	{"deployments", true, func(ctx context.Context, c kubernetes.Interface, n string) (runtime.Object, error) {
		return c.AppsV1().Deployments(n).List(ctx, metav1.ListOptions{})
	}},
	{"replicasets", true, func(ctx context.Context, c kubernetes.Interface, n string) (runtime.Object, error) {
		return c.AppsV1().ReplicaSets(n).List(ctx, metav1.ListOptions{})
	}},
	{"persistentvolumeclaims", true, func(ctx context.Context, c kubernetes.Interface, n string) (runtime.Object, error) {
		return c.CoreV1().PersistentVolumeClaims(n).List(ctx, metav1.ListOptions{})
	}},
}

// list reads objects of a kind and takes out of them what is not the business of
// who looks into a problem.
func (o Options) list(ctx context.Context, client kubernetes.Interface, read reader, namespaced bool) ([]byte, error) {
	namespaces := []string{metav1.NamespaceAll}
	if namespaced && !o.AllNamespaces {
		namespaces = ownNamespaces
	}
	var items []any
	var errs []error
	for _, namespace := range namespaces {
		found, err := read(ctx, client, namespace)
		if err != nil {
			errs = append(errs, fmt.Errorf("namespace %q: %w", namespace, err))
			continue
		}
		plain, err := runtime.DefaultUnstructuredConverter.ToUnstructured(found)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if list, ok := plain["items"].([]any); ok {
			items = append(items, list...)
		}
	}
	for _, item := range items {
		strip(item)
	}
	data, err := json.MarshalIndent(items, "", "  ")
	return data, errors.Join(append(errs, err)...)
}

// private are fields of objects whose values are their owners' business.
var private = []string{"command", "args", "httpHeaders", "data", "stringData", "binaryData", "volumeAttributes", "options", "managedFields", "last-applied-configuration"}

// strip takes the private fields and values of an object out of it.
func strip(value any) {
	switch v := value.(type) {
	case []any:
		for _, each := range v {
			strip(each)
		}
	case map[string]any:
		for name, field := range v {
			switch {
			case name == "env":
				variables, _ := field.([]any)
				for _, each := range variables {
					if variable, ok := each.(map[string]any); ok && variable["value"] != nil {
						variable["value"] = removed
					}
				}
			case name == "annotations":
				annotations, _ := field.(map[string]any)
				for key := range annotations {
					if !strings.HasPrefix(key, "skiff.dev/") && !strings.HasPrefix(key, "deployment.kubernetes.io/") && !strings.HasPrefix(key, "node.alpha.kubernetes.io/") {
						annotations[key] = removed
					}
				}
			case slices.Contains(private, name):
				v[name] = removed
			default:
				strip(field)
			}
		}
	}
}
