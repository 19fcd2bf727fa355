package iptables

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/proxy/table"
)

// BenchmarkFirstSync measures the first sync of a node whose services have ten
// endpoints each.
func BenchmarkFirstSync(b *testing.B) {
	testenv.RequireRoot(b)
	for _, variant := range []Variant{Legacy, NFT} {
		for _, size := range []int{100, 1000, 10000} {
			b.Run(fmt.Sprintf("%s/services=%d", variant, size), func(b *testing.B) {
				t := &table.Table{NodePortRanges: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}
				for i := range size {
					var endpoints []string
					for j := range 10 {
						n := i*10 + j
						endpoints = append(endpoints, fmt.Sprintf("10.%d.%d.%d:8080", 128+n/62500, n/250%250, n%250+1))
					}
					p := port(fmt.Sprintf("default/s%d:http", i), fmt.Sprintf("10.96.%d.%d", i/250, i%250+1), endpoints...)
					t.Ports = append(t.Ports, &p)
				}
				for b.Loop() {
					done := make(chan error, 1)
					go func() {
						runtime.LockOSThread() // the thread ends with its namespace
						handle, err := netns.New()
						if err == nil {
							defer handle.Close()
							var backend *Backend
							if backend, err = New(Options{Variant: variant, ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}); err == nil {
								err = backend.Sync(b.Context(), t)
							}
						}
						done <- err
					}()
					if err := <-done; err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
