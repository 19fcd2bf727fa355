package ipvs

import (
	"cmp"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The names of the ipsets, without the beginning that tells the family. Those
// that kube-proxy has bear its names.
const (
	// heldIPs are the addresses on the holder, recordedServices the virtual
	// services of ours that the kernel has or is about to get.
	heldIPs          = "IPVS-IPS"
	recordedServices = "IPVS-SERVICES"
	// clusterIPs are masqueraded from outside the pods' ranges, the others always.
	clusterIPs    = "CLUSTER-IP"
	externalIPs   = "EXTERNAL-IP"
	loadBalancers = "LOAD-BALANCER"
	nodePortsTCP  = "NODE-PORT-TCP"
	nodePortsUDP  = "NODE-PORT-UDP"
	// A set of ports alone never matches SCTP.
	nodePortsSCTP = "NODE-PORT-SCTP-HASH"
	nodeIPs       = "NODE-IP"
	// loopBack are a local endpoint, its port and itself: a pod that reached itself.
	loopBack = "LOOP-BACK"
	// firewalled are open to the sources of sourceRanges only.
	firewalled   = "LOAD-BALANCER-FW"
	sourceRanges = "LB-SOURCE-CIDR"
	// refusedServices have no endpoint, silentServices none that a policy allows;
	// silentOutside are silent to all but pods and this machine.
	refusedServices = "IPVS-REFUSED"
	silentServices  = "IPVS-SILENT"
	silentOutside   = "IPVS-SILENT-EXT"
	// localServices have the policy Local, which does not hold for pods and this machine.
	localServices    = "IPVS-LOCAL"
	healthCheckPorts = "HEALTH-CHECK-NODE-PORT"
)

// setTypes are the sets and their types, in the order in which they are made.
var setTypes = []struct{ name, kind string }{
	{heldIPs, "hash:ip"}, {recordedServices, "hash:ip,port"}, {clusterIPs, "hash:ip,port"}, {externalIPs, "hash:ip,port"}, {loadBalancers, "hash:ip,port"},
	{nodePortsTCP, "bitmap:port"}, {nodePortsUDP, "bitmap:port"}, {nodePortsSCTP, "hash:ip,port"}, {nodeIPs, "hash:ip"},
	{loopBack, "hash:ip,port,ip"}, {firewalled, "hash:ip,port"}, {sourceRanges, "hash:ip,port,net"},
	{refusedServices, "hash:ip,port"}, {silentServices, "hash:ip,port"}, {silentOutside, "hash:ip,port"}, {localServices, "hash:ip,port"},
	{healthCheckPorts, "bitmap:port"},
}

// nodePortSets are the sets of node ports without addresses by protocol.
var nodePortSets = map[corev1.Protocol]string{corev1.ProtocolTCP: nodePortsTCP, corev1.ProtocolUDP: nodePortsUDP}

// setName is the whole name of a set.
func setName(family corev1.IPFamily, name string) string {
	if family == corev1.IPv6Protocol {
		return "KUBE-6-" + name
	}
	return "KUBE-" + name
}

// setKinds are the types of all our sets by their whole names.
func setKinds() map[string]string {
	kinds := map[string]string{}
	for _, family := range families {
		for _, s := range setTypes {
			kinds[setName(family, s.name)] = s.kind
		}
	}
	return kinds
}

// createSet is the line that makes a set.
func createSet(family corev1.IPFamily, name, kind string) string {
	line := "create " + setName(family, name) + " " + kind
	if kind == "bitmap:port" {
		return line + " range 0-65535"
	}
	inet := "inet"
	if family == corev1.IPv6Protocol {
		inet = "inet6"
	}
	// The limit costs nothing until it is reached.
	return line + " family " + inet + " maxelem 1048576"
}

// element of a set, by the set's whole name.
type element struct{ set, value string }

func compareElements(a, b element) int {
	return cmp.Or(cmp.Compare(a.set, b.set), cmp.Compare(a.value, b.value))
}

func (e element) add() string    { return "add " + e.set + " " + e.value }
func (e element) remove() string { return "del " + e.set + " " + e.value }

// parseElements reads the elements from what ipset save prints.
func parseElements(saved string) ([]element, error) {
	var out []element
	for _, line := range strings.Split(saved, "\n") {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0] == "create":
		case len(words) >= 3 && words[0] == "add":
			out = append(out, element{words[1], words[2]})
		default:
			return nil, fmt.Errorf("ipset save printed %q", line)
		}
	}
	return out, nil
}
