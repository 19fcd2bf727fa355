package iptables_test

import (
	"net/netip"
	"testing"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/proxy/backendtest"
	"github.com/skiff-run/skiff/proxy/iptables"
)

// TestServicesBesideOthersRules runs everything with the rules that ufw (reject
// by default), Docker, firewalld and a pod network make.
func TestServicesBesideOthersRules(t *testing.T) {
	t.Parallel()
	testenv.RequireProgram(t, "iptables-nft")
	backendtest.Run(t, backendtest.Subject{
		New: func(clusterCIDRs []netip.Prefix) (backendtest.Backend, error) {
			return iptables.New(iptables.Options{ClusterCIDRs: clusterCIDRs, Variant: iptables.NFT})
		},
		Damage:     []string{"iptables-nft -D INPUT -m comment --comment 'kubernetes health check service ports' -j KUBE-NODEPORTS"},
		Neighbours: backendtest.Neighbours{Set: neighbours, Show: showNeighbours},
	})
}

const neighbours = `
for f in iptables ip6tables; do
  pods=10.244.0.0/16; docker=172.17.0.0/16; loop=127.0.0.0/8
  [ $f = iptables ] || { pods=fd00:10:244::/47; docker=fd00:172:17::/64; loop=::1/128; }
  $f-nft-restore <<EOF
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ufw-before-input - [0:0]
:ufw-user-input - [0:0]
:ufw-reject-input - [0:0]
:ufw-before-forward - [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:PODS-FWD - [0:0]
-A INPUT -j ufw-before-input
-A INPUT -j ufw-user-input
-A INPUT -j ufw-reject-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p ipv6-icmp -j ACCEPT
-A ufw-before-input -p icmp -j ACCEPT
-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT
-A ufw-reject-input -p tcp -j REJECT --reject-with tcp-reset
-A ufw-reject-input -j REJECT
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A FORWARD -j ufw-before-forward
-A FORWARD -j PODS-FWD
-A DOCKER-USER -j RETURN
-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
-A DOCKER-FORWARD -o docker0 -j DOCKER
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A PODS-FWD -s $pods -j ACCEPT
-A PODS-FWD -d $pods -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d $loop -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s $docker ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
COMMIT
*mangle
:FORWARD ACCEPT [0:0]
-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
COMMIT
EOF
done
nft -f - <<EOF
table inet firewalld {
  chain filter_INPUT {
    type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
  }
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    ip saddr 10.244.0.0/16 accept
    ip6 saddr fd00:10:244::/47 accept
    meta l4proto icmpv6 accept
    reject with icmpx admin-prohibited
  }
}
EOF
`

// showNeighbours leaves out empty chains of the kernel's, which iptables makes.
const showNeighbours = `
for f in iptables ip6tables; do $f-nft-save | grep -v KUBE- | grep -e '^-A' -e DROP -e '^:.* - ' | sed 's/\[[0-9]*:[0-9]*\]//'; done
nft list table inet firewalld
`
