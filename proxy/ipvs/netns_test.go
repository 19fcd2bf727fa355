package ipvs

import (
	"net/netip"
	"testing"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/proxy/backendtest"
)

// requireIPVS skips the test where the kernel or the machine lacks something.
func requireIPVS(t *testing.T) {
	t.Helper()
	testenv.RequireRoot(t)
	if err := load(); err != nil {
		t.Skipf("%v: `make test-ipvs` runs this in a virtual machine", err)
	}
	testenv.RequireProgram(t, "ipset", "iptables", "ipvsadm")
}

func TestServicesInTheKernel(t *testing.T) {
	t.Parallel()
	requireIPVS(t)
	backendtest.Run(t, backendtest.Subject{
		New: func(clusterCIDRs []netip.Prefix) (backendtest.Backend, error) {
			return New(Options{ClusterCIDRs: clusterCIDRs})
		},
		Damage: []string{
			"ipvsadm -D -t 10.96.0.5:80",
			"ipvsadm -d -t 10.96.0.5:80 -r 10.244.0.2:8080",
			"ipvsadm -e -t 10.96.0.5:80 -r 10.244.0.2:8080 -m -w 0",
			"ipvsadm -a -t 10.96.0.5:80 -r 10.244.0.3:8080 -m -w 1",
			"ipvsadm -E -t 10.96.0.5:80 -s wrr",
			"ipvsadm -C",
			"ip address del 10.96.0.5/32 dev kube-ipvs0",
			"ip address add 10.96.0.77/32 dev kube-ipvs0",
			"ip link del kube-ipvs0",
			"ipset flush KUBE-CLUSTER-IP",
			"ipset flush KUBE-IPVS-SERVICES",
			"ipset add KUBE-IPVS-REFUSED 10.96.0.5,tcp:80",
			"iptables -t nat -F KUBE-IPVS-SERVICES",
			"iptables -t nat -D POSTROUTING -j KUBE-IPVS-POSTROUTING",
			"iptables -I KUBE-IPVS-FILTER -j DROP",
			"iptables -F",
			"sysctl -w net.ipv4.vs.conntrack=0",
			"ipvsadm -C; iptables -t nat -F; iptables -t mangle -F; iptables -F; ipset flush; ip address flush dev kube-ipvs0",
		},
	})
}

// TestABridgeHoldsAddresses where the kernel has no dummy devices.
func TestABridgeHoldsAddresses(t *testing.T) {
	t.Parallel()
	requireIPVS(t)
	backendtest.Run(t, backendtest.Subject{
		New: func(clusterCIDRs []netip.Prefix) (backendtest.Backend, error) {
			return New(Options{ClusterCIDRs: clusterCIDRs, Scheduler: "mh", holders: []string{"nonsense", "bridge"}})
		},
		Damage: []string{"ip link del kube-ipvs0"},
	})
}
