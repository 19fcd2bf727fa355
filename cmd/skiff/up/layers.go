package up

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/operator"
)

// configurations are the three daemons' configurations. On a worker control
// means nothing.
type configurations struct {
	role    operator.Role
	control *config.Control
	agent   *config.Agent
	proxy   *config.Proxy
}

// layers are the configurations of a machine before and after what is merged
// over them: only base is ever saved, so that a drop-in or a variable that is
// removed later loses its effect.
type layers struct {
	// base are defaults, the places of the layout, the files in /etc/skiff, and
	// the options.
	base configurations
	// effective are those with the drop-ins and the environment over them, which is
	// what the daemons run with.
	effective configurations
}

// configure returns what daemons run with that this process starts with files of
// their own: its options win over everything.
func (o *Options) configure() (configurations, error) {
	l, err := o.layers()
	if err != nil {
		return configurations{}, err
	}
	o.override(l.effective)
	derive(l.effective, l.effective)
	return l.effective, validate(l.effective)
}

// layers merges, in rising order of weight: defaults, the places of the layout,
// the files in /etc/skiff, the options, the drop-ins, the environment.
func (o *Options) layers() (layers, error) {
	l := layers{base: o.defaults()}
	var err error
	if l.base.role, err = o.role(); err != nil {
		return l, err
	}
	for name, load := range map[string]func(path string) error{
		"control": func(path string) error { return config.Load(path, config.ControlKind, l.base.control) },
		"agent":   func(path string) error { return config.Load(path, config.AgentKind, l.base.agent) },
		"proxy":   func(path string) error { return config.Load(path, config.ProxyKind, l.base.proxy) },
	} {
		if err := load(o.UserConfig(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return l, err
		}
	}
	if l.base.role == operator.Worker {
		l.base.agent.RotateCertificates, l.base.proxy.RotateCertificates = true, true
	}
	o.override(l.base)
	l.effective = o.defaults()
	l.effective.role = l.base.role
	if err := o.merge(l); err != nil {
		return l, err
	}
	if err := o.find(l); err != nil {
		return l, err
	}
	derive(l.base, l.effective)
	return l, o.merge(l)
}

// defaults are the daemons' own with the places of the layout.
func (o *Options) defaults() configurations {
	c := configurations{control: config.DefaultControl(), agent: config.DefaultAgent(), proxy: config.DefaultProxy()}
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
	return c
}

// merge makes the effective configurations anew out of the base.
func (o *Options) merge(l layers) error {
	*l.effective.control, *l.effective.agent, *l.effective.proxy = *config.Clone(l.base.control), *config.Clone(l.base.agent), *config.Clone(l.base.proxy)
	return errors.Join(
		mergeOver(o.UserConfig("control"), config.ControlKind, l.effective.control),
		mergeOver(o.UserConfig("agent"), config.AgentKind, l.effective.agent),
		mergeOver(o.UserConfig("proxy"), config.ProxyKind, l.effective.proxy),
	)
}

// mergeOver merges a file's drop-ins and the environment over the configuration.
// Variables that mean nothing are the daemons' to complain about.
func mergeOver[C any, P interface {
	*C
	config.Validator
}](path, kind string, c P) error {
	if _, err := config.LoadDropIns(path, kind, c); err != nil {
		return err
	}
	_, err := config.ApplyEnvironment(kind, c, os.Environ())
	return err
}

// override sets what the options say.
func (o *Options) override(c configurations) {
	setPort := func(value int, f *int) {
		if value != 0 {
			*f = value
		}
	}
	set(o.NodeName, &c.agent.NodeName)
	if !o.AddressFound {
		set(o.NodeIP, &c.agent.NodeIP)
	}
	setPort(o.Port, &c.control.Port)
	setPort(o.PeerPort, &c.control.PeerPort)
	setPort(o.AgentPort, &c.agent.Port)
	setPort(o.HealthPort, &c.proxy.HealthPort)
	setPort(o.MetricsPort, &c.proxy.MetricsPort)
	set(o.ServiceCIDR, &c.control.ServiceCIDR)
	set(o.PodCIDR, &c.control.PodCIDR)
	set(o.ClusterDNS, &c.proxy.DNS.Address)
	if o.ClusterDNS != "" {
		c.agent.ClusterDNS = []string{o.ClusterDNS}
	}
	set(o.Bridge, &c.agent.Bridge)
	set(o.CgroupRoot, &c.agent.CgroupRoot)
	set(o.RegistryConfigDir, &c.agent.RegistryConfigDir)
	set(o.ContainerdAddress, &c.agent.ContainerdAddress)
	set(o.LogLevel, &c.control.LogLevel, &c.agent.LogLevel, &c.proxy.LogLevel)
}

// find gives the machine a name and an address where nothing says any.
func (o *Options) find(l layers) error {
	if l.effective.agent.NodeName == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find the host name: %w; give --node-name", err)
		}
		o.NodeName = strings.ToLower(name)
		set(o.NodeName, &l.base.agent.NodeName, &l.effective.agent.NodeName)
	}
	if l.effective.agent.NodeIP == "" {
		if o.NodeIP == "" {
			address, err := defaultAddress()
			if err != nil {
				return err
			}
			o.NodeIP, o.AddressFound = address, true
		}
		set(o.NodeIP, &l.base.agent.NodeIP, &l.effective.agent.NodeIP)
	}
	return nil
}

// derive makes the daemons of one machine agree: what they have in common is
// taken from the one it belongs to.
func derive(to, from configurations) {
	set(from.agent.NodeName, &to.proxy.NodeName, &to.control.NodeName)
	set(from.agent.NodeIP, &to.control.AdvertiseAddress)
	set(from.control.PodCIDR, &to.agent.ClusterCIDR, &to.proxy.ClusterCIDR)
}

// set sets the fields unless the value is empty.
func set(value string, fields ...*string) {
	for _, f := range fields {
		if value != "" {
			*f = value
		}
	}
}

// validate names every bad field.
func validate(c configurations) error {
	for _, name := range daemons {
		if errs := c.of(name).Validate(); len(errs) > 0 {
			return fmt.Errorf("configuration of %s: %w", name, errs.ToAggregate())
		}
	}
	return nil
}
