package network

import (
	"context"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/knftables"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestTableOfADualStackMachine(t *testing.T) {
	t.Parallel()
	fake := knftables.NewFake(knftables.InetFamily, "skiff-pods")
	f := &firewall{table: "skiff-pods", bridge: "skiff0", nft: fake}
	ctx := context.Background()
	gateways := []netip.Prefix{netip.MustParsePrefix("10.244.1.1/24"), netip.MustParsePrefix("fd00:1::1/64")}
	cluster := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00::/16")}
	if err := f.setup(ctx, gateways, cluster); err != nil {
		t.Fatal(err)
	}
	pod := Pod{
		ID: "abc", Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.7"), netip.MustParseAddr("fd00:1::7")},
		HostPorts: []HostPort{{Protocol: "tcp", HostPort: 80, PodPort: 8080}, {Protocol: "udp", HostIP: netip.MustParseAddr("192.0.2.1"), HostPort: 53, PodPort: 53}},
	}
	if err := f.addPorts(ctx, pod); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/dual-stack.nft", fake.Dump())
	if err := f.removePorts(ctx, pod); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(fake.Dump(), "add element") {
		t.Errorf("host ports are left:\n%s", fake.Dump())
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s", file, got)
	}
}
