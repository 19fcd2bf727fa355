package check

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/skiff-run/skiff/cmd/skiff/up"
	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/operator"
)

// Options say as what the machine is looked at.
type Options struct {
	up.Layout
	// Role is control or worker; empty: what the machine is, control if nothing.
	Role string
	// NodeIP is the address that will be given to init or join with --node-ip.
	NodeIP string
	// Server is the control machine that this one is to join, as for skiff join.
	Server string
}

// machine is what this machine is, or is to become.
type machine struct {
	up.Layout
	role     operator.Role
	hostName string
	// installed: it belongs to a cluster, or runs one.
	installed bool

	control *config.Control
	agent   *config.Agent
	proxy   *config.Proxy
	// problem is what is wrong with the configuration; the defaults stand in.
	problem error

	// nodeIP is the address that somebody chose, by --node-ip or in agent.yaml.
	nodeIP string
	// servers are host:port of the other control machines, as far as they are known.
	servers []string
}

func (o Options) machine(h *host) (*machine, error) {
	m := &machine{Layout: o.Layout, role: operator.Control, nodeIP: o.NodeIP}
	if o.NodeIP != "" {
		if _, err := netip.ParseAddr(o.NodeIP); err != nil {
			return nil, fmt.Errorf("--node-ip %q: must be an address of this machine, for example 192.168.56.11", o.NodeIP)
		}
	}
	record, err := o.Machine()
	m.note(h, err)
	if record != nil {
		m.role, m.installed = record.Role, !record.Joining
	}
	switch role := operator.Role(o.Role); role {
	case "":
	case operator.Control, operator.Worker:
		if record != nil && record.Role != role {
			return nil, fmt.Errorf("--role %s: this machine has joined its cluster as a %s machine; leave --role away", role, record.Role)
		}
		m.role = role
	default:
		return nil, fmt.Errorf("--role %q: must be control or worker", o.Role)
	}
	if m.hostName, err = h.hostname(); err != nil {
		m.note(h, fmt.Errorf("find the host name: %w", err))
	}
	m.installed = m.installed || (&up.Options{Layout: o.Layout}).Running()
	m.configure(h, o)
	return m, m.findServers(o.Server)
}

// note keeps the first thing that is wrong with the configuration. That others
// than root may not read it is no fault.
func (m *machine) note(h *host, err error) {
	if m.problem == nil && (h.privileged || !errors.Is(err, fs.ErrPermission)) {
		m.problem = err
	}
}

// configure reads what the daemons will be configured with; where that cannot
// be read, the defaults stand in.
func (m *machine) configure(h *host, o Options) {
	m.control, m.agent, m.proxy = config.DefaultControl(), config.DefaultAgent(), config.DefaultProxy()
	m.agent.NodeName = strings.ToLower(m.hostName)
	// Which address a machine should have is judged by an area of its own: one that
	// has none yet is configured like any other.
	for _, stand := range []string{"", "127.0.0.1"} {
		options := &up.Options{Layout: o.Layout, NodeIP: stand}
		plan, err := options.Plan(m.role)
		if err != nil {
			if stand != "" {
				m.note(h, err)
			}
			continue
		}
		m.control, m.agent, m.proxy = plan.Control, plan.Agent, plan.Proxy
		if stand != "" {
			m.agent.NodeIP, m.control.AdvertiseAddress = "", ""
		} else if m.nodeIP == "" && (!options.AddressFound || options.NodeIP != m.agent.NodeIP) {
			m.nodeIP = m.agent.NodeIP
		}
		return
	}
}

// findServers lists the control machines besides this one.
func (m *machine) findServers(server string) error {
	known := m.Servers()
	if server != "" {
		if !strings.Contains(server, "://") {
			server = "https://" + server
		}
		u, err := url.Parse(server)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" {
			return fmt.Errorf("--server %q: must be the URL of a control machine, for example https://192.168.56.10:6443", server)
		}
		known = append(known, net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "6443")))
	}
	for _, address := range known {
		host, _, err := net.SplitHostPort(address)
		if err == nil && host != m.agent.NodeIP && !slices.Contains(m.servers, address) {
			m.servers = append(m.servers, address)
		}
	}
	return nil
}

// command is what that makes this machine what it is to become.
func (m *machine) command() string {
	if m.role == operator.Worker {
		return "skiff join"
	}
	return "skiff init"
}
