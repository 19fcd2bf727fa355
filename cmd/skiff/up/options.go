package up

import (
	"fmt"
	"net"

	"github.com/spf13/pflag"
)

// Options of a cluster on one machine. Zero values of the texts and numbers
// mean: what the daemons' defaults or the files in /etc/skiff say.
type Options struct {
	Layout
	Detach bool
	// Supervise is set for the process that --detach leaves behind.
	Supervise bool
	// HandOver makes that process let go as soon as the daemons are started,
	// and keep them running whatever becomes of them.
	HandOver bool
	// Binaries is the folder of the daemons; empty: beside this program, then the PATH.
	Binaries string

	NodeName, NodeIP string
	// AddressFound says that NodeIP was found by a route, not given.
	AddressFound            bool
	Port, PeerPort          int
	AgentPort               int
	HealthPort, MetricsPort int
	ServiceCIDR, PodCIDR    string
	ClusterDNS              string
	Bridge, CgroupRoot      string
	RegistryConfigDir       string
	ContainerdAddress       string
	ContainerdBinary        string
	LogLevel                string
}

// DefaultOptions returns the options of the real cluster of this machine.
func DefaultOptions() *Options { return &Options{Layout: Layout{Root: "/"}} }

// AddFlags registers the flags of skiff up.
func (o *Options) AddFlags(set *pflag.FlagSet) {
	set.BoolVarP(&o.Detach, "detach", "d", false, "return once the node is Ready; stop it with \"skiff down\"")
	set.BoolVar(&o.Supervise, "supervise", false, "be the process that --detach leaves behind")
	set.BoolVar(&o.HandOver, "hand-over", false, "with --supervise: let go as soon as the daemons are started")
	_ = set.MarkHidden("supervise")
	_ = set.MarkHidden("hand-over")
	o.AddMachineFlags(set)
	o.AddClusterFlags(set)
}

// AddClusterFlags registers the flags of what all machines of a cluster agree on.
func (o *Options) AddClusterFlags(set *pflag.FlagSet) {
	set.IntVar(&o.Port, "port", 0, "port of the API (default 6443)")
	set.StringVar(&o.ServiceCIDR, "service-cidr", "", "range of service addresses (default 10.96.0.0/16)")
	set.StringVar(&o.PodCIDR, "pod-cidr", "", "range of pod addresses (default 10.244.0.0/16)")
	set.StringVar(&o.ClusterDNS, "cluster-dns", "", "service address of cluster DNS (default 10.96.0.10)")
}

// AddMachineFlags registers the flags that concern this machine alone, not the
// cluster it is part of.
func (o *Options) AddMachineFlags(set *pflag.FlagSet) {
	set.StringVar(&o.Root, "root", o.Root, "folder below which the cluster keeps all its files; another one makes a second cluster")
	set.StringVar(&o.Binaries, "binaries", "", "folder of skiff-control, skiff-agent and skiff-proxy; beside this program when empty")
	set.StringVar(&o.NodeName, "node-name", "", "name of the node; the host name when empty")
	set.StringVar(&o.NodeIP, "node-ip", "", "address of the node; that of the default route when empty")
	set.IntVar(&o.PeerPort, "peer-port", 0, "port the store's members reach each other by (default 6444)")
	set.IntVar(&o.AgentPort, "agent-port", 0, "port of the agent (default 10250)")
	set.IntVar(&o.HealthPort, "proxy-health-port", 0, "port of the proxy's health (default 10256)")
	set.IntVar(&o.MetricsPort, "proxy-metrics-port", 0, "port of the proxy's metrics (default 10249)")
	set.StringVar(&o.Bridge, "bridge", "", "name of the pod network's bridge (default skiff0)")
	set.StringVar(&o.CgroupRoot, "cgroup-root", "", "cgroup below which pods live (default /)")
	set.StringVar(&o.RegistryConfigDir, "registry-config-dir", "", "folder of hosts.toml files of registries and mirrors (default /etc/containerd/certs.d)")
	set.StringVar(&o.ContainerdAddress, "containerd-address", "", "socket of a running containerd; the machine's own, or a new one, when empty")
	set.StringVar(&o.ContainerdBinary, "containerd", "containerd", "containerd program to start when none is running")
	set.StringVar(&o.LogLevel, "log-level", "", "debug, info, warn or error (default info)")
}

// defaultAddress is the address this machine uses towards the world: the
// source address of the default route, else the first global one.
func defaultAddress() (string, error) {
	// Connecting a UDP socket sends nothing; it only asks the routing table.
	// 192.0.0.8 is IANA's dummy address (RFC 7600): never a real host.
	if connection, err := net.Dial("udp4", "192.0.0.8:9"); err == nil {
		defer connection.Close()
		if address, ok := connection.LocalAddr().(*net.UDPAddr); ok && !address.IP.IsLoopback() && !address.IP.IsUnspecified() {
			return address.IP.String(), nil
		}
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("list the addresses of this machine: %w; give --node-ip", err)
	}
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && network.IP.IsGlobalUnicast() && network.IP.To4() != nil {
			return network.IP.String(), nil
		}
	}
	return "", fmt.Errorf("this machine has no IPv4 address besides loopback: add one, or give --node-ip")
}
