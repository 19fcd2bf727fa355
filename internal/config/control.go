package config

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"go4.org/netipx"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-run/skiff/internal/addresspool"
)

// ControlKind is the kind of skiff-control's configuration file.
const ControlKind = "ControlConfiguration"

// Control configures skiff-control: API server, store, scheduler, controllers.
type Control struct {
	TypeMeta `yaml:",inline"`

	// DataDir holds the replicated store.
	DataDir string `yaml:"dataDir" help:"folder of the replicated store"`
	// PKIDir holds the cluster's certificates and keys under kubeadm's names.
	PKIDir string `yaml:"pkiDir" help:"folder of the certificates and keys"`
	// MemberID names this member of the store. Empty: generated once and kept in DataDir.
	MemberID string `yaml:"memberID" help:"name of this member of the store; generated when empty"`

	// NodeName is the Node of this machine, by which people know it. Empty: the host name in lower case.
	NodeName string `yaml:"nodeName" help:"Node of this machine; the host name when empty"`

	// BindAddress and Port are where the API is served.
	BindAddress string `yaml:"bindAddress" help:"address the API is served on"`
	Port        int    `yaml:"port" help:"port the API is served on"`
	// AdvertiseAddress is the address other machines reach this one by. Empty:
	// the source address of the default route.
	AdvertiseAddress string `yaml:"advertiseAddress" help:"address other machines reach this one by; found from the default route when empty"`

	// PeerPort is where the store's members reach this one. 0: the store has
	// this member only.
	PeerPort int `yaml:"peerPort" help:"port the other members of the store reach this one by; 0 for a store of one"`
	// PeerAddress is host:port of it as the others know it. Empty:
	// advertiseAddress and peerPort.
	PeerAddress string `yaml:"peerAddress" help:"host:port the other members of the store reach this one by; advertise address and peer port when empty"`
	// Join: a member without data waits to be added to a store instead of
	// founding one. It is set on every machine of a cluster once that exists, so
	// that a lost disk never founds a second cluster.
	Join bool `yaml:"join" help:"wait to be added to a store instead of founding one when there is no data yet"`

	// ReplaceDamagedStore: a member of several whose files are damaged leaves the
	// store and joins it as a new one by itself, while a majority of the others
	// runs. The damaged files stay beside the new ones.
	ReplaceDamagedStore bool `yaml:"replaceDamagedStore" help:"replace this machine's member of the store by a new one when its files are damaged and a majority of the others runs"`

	ServiceCIDR      string `yaml:"serviceCIDR" help:"range of service addresses"`
	PodCIDR          string `yaml:"podCIDR" help:"range of pod addresses of the whole cluster"`
	NodeCIDRMaskSize int    `yaml:"nodeCIDRMaskSize" help:"prefix length of the range each node gets"`
	NodePortRange    string `yaml:"nodePortRange" help:"ports for services of type NodePort"`
	// LoadBalancerPool are the addresses that services of type LoadBalancer get,
	// as ranges (192.0.2.10-192.0.2.99) or prefixes of either family: addresses of
	// the machines' network that nobody else has. Empty: such services wait for
	// somebody else.
	LoadBalancerPool []string `yaml:"loadBalancerPool" help:"addresses for services of type LoadBalancer: 192.0.2.10-192.0.2.99 or 198.51.100.0/28"`
	ClusterDomain    string   `yaml:"clusterDomain" help:"DNS domain of the cluster"`
	ClusterName      string   `yaml:"clusterName" help:"name of the cluster"`

	// EncryptionConfig is a file with an EncryptionConfiguration of
	// apiserver.config.k8s.io/v1. Empty: objects are stored in plain.
	EncryptionConfig string `yaml:"encryptionConfig" help:"file that says how objects are encrypted at rest (EncryptionConfiguration); plain when empty"`

	LogLevel string `yaml:"logLevel" help:"debug, info, warn or error"`
}

// DefaultControl returns the configuration of a control machine nobody configured.
func DefaultControl() *Control {
	return &Control{
		TypeMeta:    TypeMeta{APIVersion: APIVersion, Kind: ControlKind},
		DataDir:     "/var/lib/skiff/control",
		PKIDir:      "/etc/skiff/pki",
		BindAddress: "0.0.0.0",
		Port:        6443,
		PeerPort:    6444,

		ReplaceDamagedStore: true,

		ServiceCIDR:      "10.96.0.0/16",
		PodCIDR:          "10.244.0.0/16",
		NodeCIDRMaskSize: 24,
		NodePortRange:    "30000-32767",
		ClusterDomain:    "cluster.local",
		ClusterName:      "skiff",
		LogLevel:         "info",
	}
}

// Address is host:port by which other machines reach the API server here.
func (c *Control) Address() string {
	return net.JoinHostPort(c.AdvertiseAddress, strconv.Itoa(c.Port))
}

// Peer is host:port by which the other members of the store reach this one.
func (c *Control) Peer() string {
	if c.PeerAddress != "" {
		return c.PeerAddress
	}
	return net.JoinHostPort(c.AdvertiseAddress, strconv.Itoa(c.PeerPort))
}

// Validate names every field that cannot be used, and what would be right.
func (c *Control) Validate() field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, requirePath("dataDir", c.DataDir)...)
	errs = append(errs, requirePath("pkiDir", c.PKIDir)...)
	errs = append(errs, requireAddress("bindAddress", c.BindAddress)...)
	errs = append(errs, requirePort("port", c.Port)...)
	switch {
	case c.PeerPort != 0:
		errs = append(errs, requirePort("peerPort", c.PeerPort)...)
		if c.PeerPort == c.Port {
			errs = append(errs, field.Invalid(field.NewPath("peerPort"), c.PeerPort, "must differ from port"))
		}
	case c.Join:
		errs = append(errs, field.Invalid(field.NewPath("peerPort"), c.PeerPort, "must be set with join: the other members reach this one by it"))
	}
	if c.PeerAddress != "" {
		errs = append(errs, requireHostPort("peerAddress", c.PeerAddress)...)
	}
	if c.EncryptionConfig != "" {
		errs = append(errs, requirePath("encryptionConfig", c.EncryptionConfig)...)
	}
	if c.AdvertiseAddress != "" {
		errs = append(errs, requireAddress("advertiseAddress", c.AdvertiseAddress)...)
	}
	services, serviceErrs := requirePrefix("serviceCIDR", c.ServiceCIDR)
	pods, podErrs := requirePrefix("podCIDR", c.PodCIDR)
	errs = append(append(errs, serviceErrs...), podErrs...)
	if len(serviceErrs) == 0 && len(podErrs) == 0 {
		if services.Overlaps(pods) {
			errs = append(errs, field.Invalid(field.NewPath("podCIDR"), c.PodCIDR, "must not overlap serviceCIDR "+c.ServiceCIDR))
		}
		errs = append(errs, validateMask(c.NodeCIDRMaskSize, pods)...)
	}
	errs = append(errs, validatePool(c.LoadBalancerPool, map[string]netip.Prefix{"serviceCIDR": services, "podCIDR": pods})...)
	errs = append(errs, requireDomain("clusterDomain", c.ClusterDomain)...)
	errs = append(errs, requirePortRange("nodePortRange", c.NodePortRange)...)
	return append(errs, requireLogLevel(c.LogLevel)...)
}

func validateMask(mask int, pods netip.Prefix) field.ErrorList {
	if mask > pods.Bits() && mask < pods.Addr().BitLen() && mask-pods.Bits() <= 16 {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("nodeCIDRMaskSize"), mask,
		"must be longer than podCIDR's prefix by 1 to 16 bits, for example 24 with a /16")}
}

// validatePool checks the ranges of load balancers' addresses against each other
// and against those that have another use.
func validatePool(pool []string, used map[string]netip.Prefix) field.ErrorList {
	var errs field.ErrorList
	var ranges []netipx.IPRange
	for i, text := range pool {
		at := field.NewPath("loadBalancerPool").Index(i)
		r, err := addresspool.Parse(text)
		if err != nil {
			errs = append(errs, field.Invalid(at, text, err.Error()))
			continue
		}
		if first := r.From(); first.IsLoopback() || first.IsMulticast() || first.IsUnspecified() || first.IsLinkLocalUnicast() {
			errs = append(errs, field.Invalid(at, text, "must be unicast addresses of the machines' network"))
		}
		for _, name := range slices.Sorted(maps.Keys(used)) {
			if prefix := used[name]; prefix.IsValid() && netipx.RangeOfPrefix(prefix).Overlaps(r) {
				errs = append(errs, field.Invalid(at, text, "must not overlap "+name+" "+prefix.String()))
			}
		}
		for j, other := range ranges {
			if other.Overlaps(r) {
				errs = append(errs, field.Invalid(at, text, "must not overlap "+pool[j]))
			}
		}
		ranges = append(ranges, r)
	}
	return errs
}
