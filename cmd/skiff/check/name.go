package check

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

func checkName(ctx context.Context, e *examination) {
	if e.problem != nil {
		e.fail("configuration", e.problem.Error())
	} else if e.installed {
		e.ok("configuration", "%s", e.UserConfig("*"))
	}
	node := e.agent.NodeName
	switch problems := validation.IsDNS1123Subdomain(node); {
	case node == "localhost" || strings.HasPrefix(node, "localhost."):
		e.fail("node name", "the host is called "+node+", as every unnamed one: give it a name of its own", "hostnamectl set-hostname NAME")
	case len(problems) > 0:
		e.fail("node name", fmt.Sprintf("%q cannot name a node: %s", node, problems[0]), "hostnamectl set-hostname NAME   # a to z, 0 to 9 and -", e.command()+" --node-name NAME   # or only for the cluster")
	default:
		e.ok("node name", "%s", node)
	}
	if addresses, err := e.resolve(ctx, e.hostName); err != nil || len(addresses) == 0 {
		e.warn("host name resolves", e.hostName+" has no address: sudo and many programs wait for DNS each time", "echo '127.0.1.1 "+e.hostName+"' >> /etc/hosts")
	} else {
		e.ok("host name resolves", "to %s", strings.Join(addresses, ", "))
	}
	id := e.text("etc/machine-id")
	if id == "" || id == "uninitialized" {
		e.fail("machine-id", "/etc/machine-id is empty: nodes cannot be told apart", "systemd-machine-id-setup")
		return
	}
	e.unique(ctx, id)
}

// unique compares the machine with the cluster's nodes.
func (e *examination) unique(ctx context.Context, id string) {
	c, err := e.cluster(ctx, e.machine)
	if err != nil {
		e.ok("machine-id", "%s", id)
		return
	}
	for _, n := range c.nodes {
		same := n.name == e.agent.NodeName
		switch {
		case same && n.machineID != "" && n.machineID != id:
			e.fail("unique", "the cluster has another machine that is called "+n.name, "hostnamectl set-hostname NAME && skiff reset --yes   # then join again")
			return
		case !same && n.machineID == id:
			e.warn("machine-id", fmt.Sprintf("node %s has the same, so one was copied from the other: DHCP may give both one address", n.name),
				"rm /etc/machine-id /var/lib/dbus/machine-id; systemd-machine-id-setup && reboot")
			return
		}
	}
	e.ok("machine-id", "%s, which none of the %d nodes has besides this one", id, len(c.nodes))
}
