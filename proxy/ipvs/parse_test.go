package ipvs

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/proxy/table"
)

func TestKeysAreReadAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	for _, k := range []key{
		{corev1.ProtocolTCP, netip.MustParseAddr("10.96.0.5"), 80}, {corev1.ProtocolUDP, netip.MustParseAddr("fd00::5"), 53}, {corev1.ProtocolSCTP, netip.MustParseAddr("10.96.0.5"), 65535},
	} {
		if got, err := parseKey(k.element()); err != nil || got != k {
			t.Errorf("%s is read as %v, %v", k.element(), got, err)
		}
	}
	for _, bad := range []string{"", "10.96.0.5", "10.96.0.5,80", "10.96.0.5,tcp:65536", "10.96.0.5,icmp:80", "nowhere,tcp:80"} {
		if got, err := parseKey(bad); err == nil {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
}

func TestSetsAreReadAsIpsetPrintsThem(t *testing.T) {
	t.Parallel()
	elements, err := parseElements("create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 1048576\nadd KUBE-CLUSTER-IP 10.96.0.5,tcp:80\nadd KUBE-CLUSTER-IP 10.96.0.6,udp:53 comment \"theirs\"\n")
	if want := []element{{"KUBE-CLUSTER-IP", "10.96.0.5,tcp:80"}, {"KUBE-CLUSTER-IP", "10.96.0.6,udp:53"}}; err != nil || !slices.Equal(elements, want) {
		t.Errorf("got %v, %v", elements, err)
	}
	if _, err := parseElements("error: no such set"); err == nil {
		t.Error("nonsense is read")
	}
	headers, err := parseHeaders("Name: a\nType: hash:ip,port\nRevision: 6\nHeader: family inet\nSize in memory: 200\nReferences: 1\nNumber of entries: 12\n\nName: b\nType: bitmap:port\nNumber of entries: 0\n")
	if err != nil || headers["a"] != (setHeader{"hash:ip,port", 12}) || headers["b"] != (setHeader{"bitmap:port", 0}) || len(headers) != 2 {
		t.Errorf("got %v, %v", headers, err)
	}
}

func TestSetNamesAreShortEnough(t *testing.T) {
	t.Parallel()
	kinds := setKinds()
	if len(kinds) != 2*len(setTypes) {
		t.Errorf("%d names for %d sets", len(kinds), 2*len(setTypes))
	}
	for name := range kinds {
		if len(name) > 31 {
			t.Errorf("%s has %d characters; the kernel takes 31", name, len(name))
		}
	}
	for _, c := range chains(corev1.IPv6Protocol, nil, nil) {
		if len(c.name) > 28 || !strings.HasPrefix(c.name, chainPrefix) {
			t.Errorf("chain %s", c.name)
		}
	}
}

func TestOnlyOurRulesAreRemoved(t *testing.T) {
	t.Parallel()
	got := removalText([]string{
		"nat :KUBE-IPVS-SERVICES", "nat :KUBE-IPVS-MASQ", "nat -A PREROUTING -j KUBE-IPVS-SERVICES", "nat -A KUBE-IPVS-SERVICES -j KUBE-IPVS-MASQ",
		"filter :KUBE-IPVS-FILTER", "filter -A INPUT -m conntrack --ctstate NEW -j KUBE-IPVS-FILTER",
	})
	want := `*nat
:KUBE-IPVS-SERVICES - [0:0]
:KUBE-IPVS-MASQ - [0:0]
-D PREROUTING -j KUBE-IPVS-SERVICES
-X KUBE-IPVS-SERVICES
-X KUBE-IPVS-MASQ
COMMIT
*filter
:KUBE-IPVS-FILTER - [0:0]
-D INPUT -m conntrack --ctstate NEW -j KUBE-IPVS-FILTER
-X KUBE-IPVS-FILTER
COMMIT
`
	if got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestADetourTakesAPortThatTheServiceDoesNotUse(t *testing.T) {
	t.Parallel()
	both := func(name string, number uint16) *table.ServicePort {
		p := port(name, "10.96.0.5", "10.244.1.2:80")
		p.Port, p.NodePort, p.InternalLocal, p.ExternalLocal = number, number, true, true
		return &p
	}
	a, b := both("default/web:a", 65535), both("default/web:b", 80)
	plain := port("default/web:c", "10.96.0.5", "10.244.1.2:80")
	plain.Port = 65534
	elsewhere := both("default/other:a", 80)
	elsewhere.ClusterIP = netip.MustParseAddr("10.96.0.6")
	got := detourPorts([]*table.ServicePort{a, b, &plain, elsewhere})
	if got[a] != 65533 || got[b] != 65532 || got[elsewhere] != 65535 || got[&plain] != 0 {
		t.Errorf("got %d, %d, %d, %d", got[a], got[b], got[elsewhere], got[&plain])
	}
	if got := detourPorts([]*table.ServicePort{&plain}); got != nil {
		t.Errorf("got %v though nobody needs one", got)
	}
}
