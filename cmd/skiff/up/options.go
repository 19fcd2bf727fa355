package up

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/operator"
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

// configurations are the three daemons' configurations for these options. On
// a worker control means nothing.
type configurations struct {
	role    operator.Role
	control *config.Control
	agent   *config.Agent
	proxy   *config.Proxy
}

// configure merges, in rising order of weight: defaults, the places of the
// layout, the files in /etc/skiff, and the options.
func (o *Options) configure() (configurations, error) {
	c := configurations{control: config.DefaultControl(), agent: config.DefaultAgent(), proxy: config.DefaultProxy()}
	var err error
	if c.role, err = o.role(); err != nil {
		return c, err
	}
	c.control.DataDir = filepath.Join(o.Data(), "control")
	c.control.PKIDir = o.PKI()
	c.agent.Kubeconfig, c.proxy.Kubeconfig = o.Kubeconfig("agent"), o.Kubeconfig("proxy")
	c.proxy.StateDir = filepath.Join(o.Data(), "proxy")
	c.agent.ClientCAFile = filepath.Join(o.PKI(), "ca.crt")
	c.agent.TLSCertFile = filepath.Join(o.PKI(), "agent-server.crt")
	c.agent.TLSKeyFile = filepath.Join(o.PKI(), "agent-server.key")
	c.agent.RootDir, c.agent.StateDir, c.agent.RunDir = o.path("var/lib/kubelet"), filepath.Join(o.Data(), "agent"), o.Run()
	c.agent.PodLogsDir, c.agent.ContainerLogsDir = o.path("var/log/pods"), o.path("var/log/containers")
	c.agent.StaticPodPath = o.path("etc/skiff/pods")
	c.agent.LocalVolumesDir = filepath.Join(o.Data(), "volumes")
	c.agent.RegistryConfigDir = o.path("etc/containerd/certs.d")
	c.agent.ContainerdAddress = o.ContainerdSocket()

	for _, file := range []struct {
		daemon, kind string
		into         any
	}{{"control", config.ControlKind, c.control}, {"agent", config.AgentKind, c.agent}, {"proxy", config.ProxyKind, c.proxy}} {
		path := o.UserConfig(file.daemon)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if err := config.Load(path, file.kind, file.into); err != nil {
			return c, err
		}
	}
	if c.role == operator.Worker {
		c.agent.RotateCertificates, c.proxy.RotateCertificates = true, true
	}
	if err := o.override(c); err != nil {
		return c, err
	}
	for _, each := range []struct {
		daemon        string
		configuration config.Validator
	}{{"control", c.control}, {"agent", c.agent}, {"proxy", c.proxy}} {
		if errs := each.configuration.Validate(); len(errs) > 0 {
			return c, fmt.Errorf("configuration of %s: %w", each.daemon, errs.ToAggregate())
		}
	}
	return c, nil
}

func (o *Options) override(c configurations) error {
	set := func(value string, fields ...*string) {
		for _, f := range fields {
			if value != "" {
				*f = value
			}
		}
	}
	setPort := func(value int, f *int) {
		if value != 0 {
			*f = value
		}
	}
	if o.NodeName == "" && c.agent.NodeName == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find the host name: %w; give --node-name", err)
		}
		o.NodeName = strings.ToLower(name)
	}
	if o.NodeIP == "" && c.agent.NodeIP == "" {
		address, err := defaultAddress()
		if err != nil {
			return err
		}
		o.NodeIP, o.AddressFound = address, true
	}
	set(o.NodeName, &c.agent.NodeName, &c.proxy.NodeName)
	set(o.NodeIP, &c.agent.NodeIP, &c.control.AdvertiseAddress)
	set(c.agent.NodeIP, &c.control.AdvertiseAddress)
	set(c.agent.NodeName, &c.proxy.NodeName, &c.control.NodeName)
	setPort(o.Port, &c.control.Port)
	setPort(o.PeerPort, &c.control.PeerPort)
	setPort(o.AgentPort, &c.agent.Port)
	setPort(o.HealthPort, &c.proxy.HealthPort)
	setPort(o.MetricsPort, &c.proxy.MetricsPort)
	set(o.ServiceCIDR, &c.control.ServiceCIDR)
	set(o.PodCIDR, &c.control.PodCIDR)
	set(c.control.PodCIDR, &c.agent.ClusterCIDR, &c.proxy.ClusterCIDR)
	set(o.ClusterDNS, &c.proxy.DNS.Address)
	if o.ClusterDNS != "" {
		c.agent.ClusterDNS = []string{o.ClusterDNS}
	}
	set(o.Bridge, &c.agent.Bridge)
	set(o.CgroupRoot, &c.agent.CgroupRoot)
	set(o.RegistryConfigDir, &c.agent.RegistryConfigDir)
	set(o.ContainerdAddress, &c.agent.ContainerdAddress)
	set(o.LogLevel, &c.control.LogLevel, &c.agent.LogLevel, &c.proxy.LogLevel)
	return nil
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
