package config

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ProxyKind is the kind of skiff-proxy's configuration file.
const ProxyKind = "ProxyConfiguration"

// Proxy configures skiff-proxy: service addresses and cluster DNS of one machine.
type Proxy struct {
	TypeMeta `yaml:",inline"`

	// NodeName is the Node this proxy serves. Empty: the host name in lower case.
	NodeName   string `yaml:"nodeName" help:"Node this proxy serves; the host name when empty"`
	Kubeconfig string `yaml:"kubeconfig" help:"credentials and address of an API server"`
	// BootstrapKubeconfig holds a bootstrap token with which a machine without a
	// certificate asks for its first.
	BootstrapKubeconfig string `yaml:"bootstrapKubeconfig" help:"bootstrap token to ask for the first certificate with"`
	// RotateCertificates has the API issue and renew this machine's certificate.
	// A control machine signs its proxy's certificate itself.
	RotateCertificates bool `yaml:"rotateCertificates" help:"have the API issue and renew this machine's certificate"`
	// ControlAddresses are host:port of all API servers; empty: the kubeconfig's only.
	ControlAddresses []string `yaml:"controlAddresses" help:"host:port of every API server"`

	// Mode is how the kernel is programmed. auto is nftables where the kernel has
	// it, otherwise iptables.
	Mode     string   `yaml:"mode" help:"how the kernel is programmed: auto, nftables, iptables, ipvs"`
	IPTables IPTables `yaml:"iptables"`
	IPVS     IPVS     `yaml:"ipvs"`
	// ClusterCIDR is the range of all pods, or two with a comma between them, one
	// of each family: what comes from elsewhere to a service is masqueraded.
	ClusterCIDR string `yaml:"clusterCIDR" help:"range of all pods, or two (IPv4,IPv6)"`
	// NodePortAddresses limits node ports to addresses in these ranges; primary
	// alone is the node's own address of each family. Empty is as in kube-proxy:
	// primary in the mode nftables, every address in the others.
	NodePortAddresses []string `yaml:"nodePortAddresses" help:"ranges of addresses that serve node ports, or primary for the node's own; when empty primary in the mode nftables, every address in others"`

	// NetworkPolicy enforces NetworkPolicies on this machine.
	NetworkPolicy bool `yaml:"networkPolicy" help:"enforce network policies"`
	// StateDir keeps what has to be known at a start while the API is away.
	StateDir string `yaml:"stateDir" help:"folder of what has to be known at a start while the API is away"`

	// HealthPort serves /healthz and /livez; MetricsPort serves /metrics and /proxyMode on loopback. 0 turns one off.
	HealthPort  int `yaml:"healthPort" help:"port of /healthz; 0 turns it off"`
	MetricsPort int `yaml:"metricsPort" help:"loopback port of /metrics; 0 turns it off"`

	DNS DNS `yaml:"dns"`

	LogLevel string `yaml:"logLevel" help:"debug, info, warn or error"`
}

// IPTables configures the mode iptables.
type IPTables struct {
	// Variant is which of the programs called iptables is used; auto: the one that
	// the machine calls so.
	Variant string `yaml:"variant" help:"mode iptables: which program, auto, nft or legacy"`
	// LocalhostNodePorts serves node ports on 127.0.0.0/8 too, if
	// nodePortAddresses contain it. It turns the kernel's route_localnet on.
	LocalhostNodePorts bool `yaml:"localhostNodePorts" help:"mode iptables: serve node ports on 127.0.0.1 too"`
}

// IPVS configures the mode ipvs, with kube-proxy's names. Durations are written
// as Go does, for example 15m0s.
type IPVS struct {
	// Scheduler chooses the endpoint of a connection.
	Scheduler string `yaml:"scheduler" help:"mode ipvs: how endpoints are chosen: rr, wrr, lc, wlc, sh, mh, dh, sed or nq"`
	// StrictARP makes the machine answer ARP for an address only on the link that
	// has it. Addresses of load balancers that are announced need it, because in
	// this mode every machine holds them.
	StrictARP bool `yaml:"strictARP" help:"mode ipvs: answer ARP for a link's own addresses only"`
	// SyncPeriod is how often the kernel is compared with what was programmed,
	// MinSyncPeriod the least time between two changes of it.
	SyncPeriod    string `yaml:"syncPeriod" help:"mode ipvs: how often the kernel is compared with what was programmed"`
	MinSyncPeriod string `yaml:"minSyncPeriod" help:"mode ipvs: the least time between two changes of the kernel"`
	// ExcludeCIDRs are addresses whose virtual services are never removed.
	ExcludeCIDRs []string `yaml:"excludeCIDRs" help:"mode ipvs: ranges whose virtual services are left alone"`
	// TCPTimeout, TCPFinTimeout and UDPTimeout are how long connections are
	// remembered that say nothing, of TCP, of TCP after a FIN, and of UDP. 0s leaves
	// the kernel's.
	TCPTimeout    string `yaml:"tcpTimeout" help:"mode ipvs: how long an idle TCP connection is remembered; 0s leaves the kernel's"`
	TCPFinTimeout string `yaml:"tcpFinTimeout" help:"mode ipvs: the same after a FIN"`
	UDPTimeout    string `yaml:"udpTimeout" help:"mode ipvs: the same for UDP"`
}

// IPVSSchedulers are the values of IPVS.Scheduler. That the proxy takes each is
// tested there.
func IPVSSchedulers() []string {
	return []string{"rr", "wrr", "lc", "wlc", "sh", "mh", "dh", "sed", "nq"}
}

// DNS configures the cluster's name server on this machine.
type DNS struct {
	Enabled bool `yaml:"enabled" help:"serve cluster DNS"`
	// Address is the service address that pods ask.
	Address       string `yaml:"address" help:"service address that pods ask"`
	ClusterDomain string `yaml:"clusterDomain" help:"DNS domain of the cluster"`
	// Upstreams are host:port of the servers that answer for other names. Empty: those of resolv.conf.
	Upstreams []string `yaml:"upstreams" help:"host:port of the servers for other names; those of resolv.conf when empty"`
	// Policy says whom of several upstreams to ask first: the first that works, as
	// resolv.conf means it, or any of those that work.
	Policy string `yaml:"policy" help:"whom of several upstreams to ask first: sequential or random"`
	// StubDomains have servers of their own: domain to host:port, several with
	// blanks between. The longest domain wins.
	StubDomains map[string]string `yaml:"stubDomains" help:"servers of single domains, such as corp.example=192.0.2.53:53; several with blanks between"`
}

// DefaultProxy returns the configuration of a machine nobody configured.
func DefaultProxy() *Proxy {
	return &Proxy{
		TypeMeta:   TypeMeta{APIVersion: APIVersion, Kind: ProxyKind},
		Kubeconfig: "/etc/skiff/proxy.conf",
		Mode:       "auto",
		IPTables:   IPTables{Variant: "auto", LocalhostNodePorts: true},
		IPVS: IPVS{
			Scheduler: "rr", SyncPeriod: "30s", MinSyncPeriod: "0s", TCPTimeout: "0s", TCPFinTimeout: "0s", UDPTimeout: "0s",
		},
		ClusterCIDR:   "10.244.0.0/16",
		NetworkPolicy: true,
		StateDir:      "/var/lib/skiff/proxy",
		HealthPort:    10256,
		MetricsPort:   10249,
		DNS:           DNS{Enabled: true, Address: "10.96.0.10", ClusterDomain: "cluster.local", Policy: "sequential"},
		LogLevel:      "info",
	}
}

// ClusterCIDRs are the ranges in ClusterCIDR.
func (c *Proxy) ClusterCIDRs() []string { return strings.Split(c.ClusterCIDR, ",") }

// ProxyModes are the values of Mode. That the proxy serves each is tested there.
func ProxyModes() []string { return []string{"auto", "nftables", "iptables", "ipvs"} }

// Validate names every field that cannot be used, and what would be right.
func (c *Proxy) Validate() field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, requirePath("kubeconfig", c.Kubeconfig)...)
	if c.BootstrapKubeconfig != "" {
		errs = append(errs, requirePath("bootstrapKubeconfig", c.BootstrapKubeconfig)...)
	}
	errs = append(errs, requirePath("stateDir", c.StateDir)...)
	errs = append(errs, requireOneOf("mode", c.Mode, ProxyModes()...)...)
	errs = append(errs, requireOneOf("iptables.variant", c.IPTables.Variant, "auto", "nft", "legacy")...)
	errs = append(errs, c.IPVS.validate()...)
	for _, text := range c.ClusterCIDRs() {
		_, clusterErrs := requirePrefix("clusterCIDR", text)
		errs = append(errs, clusterErrs...)
	}
	for i, a := range c.ControlAddresses {
		errs = append(errs, requireHostPort(fmt.Sprintf("controlAddresses[%d]", i), a)...)
	}
	for i, p := range c.NodePortAddresses {
		if p == "primary" && len(c.NodePortAddresses) == 1 {
			continue
		}
		name := fmt.Sprintf("nodePortAddresses[%d]", i)
		if _, prefixErrs := requirePrefix(name, p); len(prefixErrs) > 0 {
			errs = append(errs, field.Invalid(path(name), p, `must be a range such as 192.0.2.0/24, or the list must be "primary" alone`))
		}
	}
	for _, p := range []struct {
		name string
		port int
	}{{"healthPort", c.HealthPort}, {"metricsPort", c.MetricsPort}} {
		if p.port != 0 {
			errs = append(errs, requirePort(p.name, p.port)...)
		}
	}
	if c.DNS.Enabled {
		errs = append(errs, requireAddress("dns.address", c.DNS.Address)...)
		errs = append(errs, requireDomain("dns.clusterDomain", c.DNS.ClusterDomain)...)
		for i, u := range c.DNS.Upstreams {
			errs = append(errs, requireHostPort(fmt.Sprintf("dns.upstreams[%d]", i), u)...)
		}
		errs = append(errs, requireOneOf("dns.policy", c.DNS.Policy, "sequential", "random")...)
		for domain, servers := range c.DNS.StubDomains {
			name := fmt.Sprintf("dns.stubDomains[%s]", domain)
			errs = append(errs, requireDomain(name, strings.TrimSuffix(domain, "."))...)
			if len(strings.Fields(servers)) == 0 {
				errs = append(errs, field.Required(path(name), "give host:port of the domain's servers"))
			}
			for _, server := range strings.Fields(servers) {
				errs = append(errs, requireHostPort(name, server)...)
			}
		}
	}
	return append(errs, requireLogLevel(c.LogLevel)...)
}

func (c *IPVS) validate() field.ErrorList {
	errs := requireOneOf("ipvs.scheduler", c.Scheduler, IPVSSchedulers()...)
	for i, text := range c.ExcludeCIDRs {
		_, prefixErrs := requirePrefix(fmt.Sprintf("ipvs.excludeCIDRs[%d]", i), text)
		errs = append(errs, prefixErrs...)
	}
	for _, d := range []struct{ name, value string }{
		{"syncPeriod", c.SyncPeriod}, {"minSyncPeriod", c.MinSyncPeriod},
		{"tcpTimeout", c.TCPTimeout}, {"tcpFinTimeout", c.TCPFinTimeout}, {"udpTimeout", c.UDPTimeout},
	} {
		errs = append(errs, requireDuration("ipvs."+d.name, d.value, 0, 31*24*time.Hour)...)
	}
	if len(errs) == 0 && mustDuration(c.SyncPeriod) < max(time.Second, mustDuration(c.MinSyncPeriod)) {
		errs = append(errs, field.Invalid(path("ipvs.syncPeriod"), c.SyncPeriod, "must be at least 1s and not less than minSyncPeriod"))
	}
	return errs
}

// mustDuration reads what requireDuration has checked.
func mustDuration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0
	}
	return d
}

// Periods are SyncPeriod and MinSyncPeriod after validation.
func (c *IPVS) Periods() (sync, minSync time.Duration) {
	return mustDuration(c.SyncPeriod), mustDuration(c.MinSyncPeriod)
}

// Timeouts are TCPTimeout, TCPFinTimeout and UDPTimeout after validation.
func (c *IPVS) Timeouts() (tcp, tcpFin, udp time.Duration) {
	return mustDuration(c.TCPTimeout), mustDuration(c.TCPFinTimeout), mustDuration(c.UDPTimeout)
}
