package ipvs

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/proxy/table"
)

// many are services with 10 endpoints each.
func many(size int) *table.Table {
	t := &table.Table{NodePortRanges: tableOf().NodePortRanges}
	for i := range size {
		t.Ports = append(t.Ports, endpoints(i, 10))
	}
	return t
}

// endpoints makes a service port with so many endpoints.
func endpoints(service, count int) *table.ServicePort {
	p := &table.ServicePort{
		Name: fmt.Sprintf("default/s%05d:http", service), Protocol: corev1.ProtocolTCP, Port: 80, HasEndpoints: true,
		ClusterIP: netip.AddrFrom4([4]byte{10, 96, byte(service / 250), byte(service%250 + 1)}),
	}
	for i := range count {
		n := service*10 + i
		address := netip.AddrFrom4([4]byte{10, byte(128 + n/62500), byte(n / 250 % 250), byte(n%250 + 1)})
		p.Cluster = append(p.Cluster, table.Endpoint{Address: netip.AddrPortFrom(address, 8080)})
	}
	return p
}

// BenchmarkSync measures the first sync of a node, the sync of one endpoint
// that comes or goes, and the look for changes by others.
func BenchmarkSync(b *testing.B) {
	requireIPVS(b)
	for _, size := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprintf("services=%d/first", size), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				inNamespace(b, func() error {
					backend, err := New(Options{})
					if err != nil {
						return err
					}
					defer b.StopTimer()
					b.StartTimer()
					return backend.Sync(b.Context(), many(size))
				})
				b.StartTimer()
			}
		})
		b.Run(fmt.Sprintf("services=%d/one-endpoint", size), func(b *testing.B) {
			afterSync(b, many(size), func(backend *Backend, all *table.Table) error {
				for b.Loop() {
					next := *all
					next.Ports = slices.Clone(all.Ports)
					next.Ports[50] = endpoints(50, 19-len(all.Ports[50].Cluster))
					all = &next
					if err := backend.Sync(b.Context(), all); err != nil {
						return err
					}
				}
				return nil
			})
		})
		b.Run(fmt.Sprintf("services=%d/check", size), func(b *testing.B) {
			afterSync(b, many(size), func(backend *Backend, _ *table.Table) error {
				for b.Loop() {
					if found, err := backend.Check(b.Context()); err != nil || found != "" {
						return fmt.Errorf("found %q: %w", found, err)
					}
				}
				return nil
			})
		})
	}
}

// afterSync runs f where the table is programmed already.
func afterSync(b *testing.B, all *table.Table, f func(*Backend, *table.Table) error) {
	b.Helper()
	inNamespace(b, func() error {
		backend, err := New(Options{})
		if err == nil {
			err = backend.Sync(b.Context(), all)
		}
		if err != nil {
			return err
		}
		return f(backend, all)
	})
}
