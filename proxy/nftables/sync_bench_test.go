package nftables_test

import (
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	"github.com/vishvananda/netns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/proxy/nftables"
	"github.com/skiff-run/skiff/proxy/table"
)

// cluster is a number of services with 10 endpoints each.
type cluster struct {
	services []*corev1.Service
	slices   map[string][]*discoveryv1.EndpointSlice
}

func newCluster(size int) *cluster {
	c := &cluster{slices: map[string][]*discoveryv1.EndpointSlice{}}
	for i := range size {
		name := fmt.Sprintf("s%05d", i)
		c.services = append(c.services, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeClusterIP, ClusterIP: fmt.Sprintf("10.96.%d.%d", i/250, i%250+1),
				Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
			},
		})
		c.slices[name] = []*discoveryv1.EndpointSlice{slice(i, 10)}
	}
	return c
}

func slice(service, endpoints int) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](8080)}},
	}
	for i := range endpoints {
		n := service*10 + i
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.%d.%d.%d", 128+n/62500, n/250%250, n%250+1)}, NodeName: ptr.To("elsewhere")})
	}
	return s
}

func (c *cluster) slicesOf(_, name string) []*discoveryv1.EndpointSlice { return c.slices[name] }

// BenchmarkSync measures the first sync of a node, the sync of one endpoint
// that comes or goes, and the look for changes by others.
func BenchmarkSync(b *testing.B) {
	testenv.RequireRoot(b)
	testenv.RequireProgram(b, "nft")
	for _, size := range []int{100, 1000, 10000} {
		c := newCluster(size)
		b.Run(fmt.Sprintf("services=%d/first", size), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				inNamespace(b, func(backend *nftables.Backend) error {
					b.StartTimer()
					defer b.StopTimer()
					return backend.Sync(b.Context(), table.Build(table.Node{Name: "here"}, c.services, c.slicesOf))
				})
				b.StartTimer()
			}
		})
		b.Run(fmt.Sprintf("services=%d/one-endpoint", size), func(b *testing.B) {
			inNamespace(b, func(backend *nftables.Backend) error {
				var builder table.Builder
				node := table.Node{Name: "here"}
				if err := backend.Sync(b.Context(), builder.Build(node, c.services, c.slicesOf)); err != nil {
					return err
				}
				endpoints := 10
				for b.Loop() {
					endpoints = 19 - endpoints
					c.slices["s00050"] = []*discoveryv1.EndpointSlice{slice(50, endpoints)}
					if err := backend.Sync(b.Context(), builder.Build(node, slices.Clone(c.services), c.slicesOf)); err != nil {
						return err
					}
				}
				return nil
			})
		})
		b.Run(fmt.Sprintf("services=%d/check", size), func(b *testing.B) {
			inNamespace(b, func(backend *nftables.Backend) error {
				if err := backend.Sync(b.Context(), table.Build(table.Node{Name: "here"}, c.services, c.slicesOf)); err != nil {
					return err
				}
				for b.Loop() {
					b.StopTimer()
					// Somebody else changes a table of theirs.
					if output, err := exec.Command("nft", "add table ip theirs; delete table ip theirs").CombinedOutput(); err != nil {
						return fmt.Errorf("%w: %s", err, output)
					}
					b.StartTimer()
					if found, err := backend.Check(b.Context()); err != nil || found != "" {
						return fmt.Errorf("found %q: %w", found, err)
					}
				}
				return nil
			})
		})
	}
}

// inNamespace runs f on a thread whose network namespace goes with it.
func inNamespace(b testing.TB, f func(*nftables.Backend) error) {
	b.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		handle, err := netns.New()
		if err != nil {
			done <- err
			return
		}
		defer handle.Close()
		backend, err := nftables.New(nftables.Options{})
		if err == nil {
			err = f(backend)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
