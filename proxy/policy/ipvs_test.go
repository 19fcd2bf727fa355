package policy

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/skiff-run/skiff/internal/testenv"
)

// TestPoliciesHoldForWhatIPVSSends: a packet to a service's address that IPVS
// serves is never forwarded, and is judged all the same before it reaches a pod.
func TestPoliciesHoldForWhatIPVSSends(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "nft")
	_ = exec.Command("modprobe", "ip_vs").Run() // what counts is whether it is there
	if _, err := os.Stat("/proc/net/ip_vs"); err != nil {
		t.Skip("the kernel has no IPVS: `make test-ipvs` runs this in a virtual machine")
	}
	testenv.RequireProgram(t, "ipvsadm")
	for family, name := range []string{"IPv4", "IPv6"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, family)
			service, web := netip.AddrPortFrom(w.address("service"), 99), netip.AddrPortFrom(w.address("web"), 99)
			w.hosts["node"].Must(func() error {
				script := fmt.Sprintf(`sysctl -qw net.ipv4.vs.conntrack=1; ip link add kube-ipvs0 type dummy; ip link set kube-ipvs0 up; ip address add %s dev kube-ipvs0
ipvsadm -A -u %s -s rr; ipvsadm -a -u %s -r %s -m`, service.Addr(), service, service, web)
				if output, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
					return fmt.Errorf("%w: %s", err, output)
				}
				return nil
			})
			var packets net.PacketConn
			w.hosts["web"].Must(func() (err error) {
				packets, err = net.ListenPacket("udp", web.String())
				return err
			})
			defer packets.Close()
			for _, step := range []struct {
				policies []*networkingv1.NetworkPolicy
				arrives  map[string]bool
			}{
				{nil, map[string]bool{"db": true, "far": true, "node": true}},
				{[]*networkingv1.NetworkPolicy{policyFor("web", in(nil, app("db")))}, map[string]bool{"db": true, "far": false, "node": true}},
				{[]*networkingv1.NetworkPolicy{policyFor("db", closed("Egress"))}, map[string]bool{"db": false, "far": true}},
				{[]*networkingv1.NetworkPolicy{policyFor("web", closed("Ingress"))}, map[string]bool{"db": false, "far": false, "node": true}},
			} {
				w.enforce(input(step.policies...))
				for from, arrives := range step.arrives {
					connection, err := w.hosts[from].Connect("udp", service, answerLimit)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := fmt.Fprintf(connection, "from %s", from); err != nil && arrives {
						t.Errorf("from %s: %v", from, err)
					}
					limit := silenceLimit
					if arrives {
						limit = answerLimit
					}
					_ = packets.SetReadDeadline(time.Now().Add(limit))
					buffer := make([]byte, 64)
					n, _, err := packets.ReadFrom(buffer)
					if got := strings.TrimPrefix(string(buffer[:n]), "from ") == from && err == nil; got != arrives {
						t.Errorf("with %d policies a packet of %s arrives: %v (%q, %v)", len(step.policies), from, got, buffer[:n], err)
					}
					connection.Close()
				}
			}
		})
	}
}
