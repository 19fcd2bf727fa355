package up

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/internal/pki"
)

// daemons in the order they are started; they are stopped in reverse.
var daemons = []string{"control", "agent", "proxy"}

// check finds what this machine lacks before anything is changed.
func (o *Options) check(role operator.Role) error {
	if os.Geteuid() != 0 {
		return errors.New("needs root: containers, networks and cgroups are made by root; run it with sudo")
	}
	var missing []string
	for program, debian := range map[string]string{"runc": "runc", "nft": "nftables", "conntrack": "conntrack"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, debian)
		}
	}
	if o.ContainerdAddress == "" && !answers(o.ContainerdSocket()) {
		if _, err := exec.LookPath(o.ContainerdBinary); err != nil {
			missing = append(missing, "containerd")
		}
	}
	if len(missing) > 0 {
		return unfit(fmt.Errorf("this machine lacks programs: apt-get install %s", strings.Join(missing, " ")))
	}
	for _, name := range daemonsOf(role) {
		if _, err := o.binary(name); err != nil {
			return err
		}
	}
	return nil
}

// unfit is an error of which the machine may be the reason.
func unfit(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w\n\"skiff check\" looks at this machine and says what helps", err)
}

// binary finds the program of a daemon.
func (o *Options) binary(name string) (string, error) {
	program := "skiff-" + name
	folder := o.Binaries
	if folder == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find this program: %w; give --binaries", err)
		}
		folder = filepath.Dir(self)
	}
	if path := filepath.Join(folder, program); isExecutable(path) {
		return path, nil
	}
	if path, err := exec.LookPath(program); o.Binaries == "" && err == nil {
		return path, nil
	}
	return "", fmt.Errorf("%s is not in %s: build it with `make build`, or give --binaries", program, folder)
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// answers says whether somebody listens on a unix socket.
func answers(socket string) bool {
	connection, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	connection.Close()
	return true
}

// prepare makes folders and configuration files and, on a control machine, the
// certificates and kubeconfigs: a worker got its own when it joined. Under
// systemd they are then those users' that the units run as.
func (o *Options) prepare(c configurations) error {
	if err := o.makeFiles(c); err != nil {
		return err
	}
	return o.handOver()
}

func (o *Options) makeFiles(c configurations) error {
	for _, dir := range []string{o.Data(), filepath.Dir(o.Config("x")), o.Logs(), c.agent.StaticPodPath} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	if err := o.writeConfigurations(c); err != nil || c.role == operator.Worker {
		return err
	}
	address := net.ParseIP(c.agent.NodeIP)
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("find the host name: %w", err)
	}
	authority, err := pki.EnsureControl(pki.Control{
		Dir: o.PKI(), Names: []string{host, c.agent.NodeName}, Addresses: []net.IP{address},
		ServiceCIDR: c.control.ServiceCIDR, ClusterDomain: c.control.ClusterDomain,
	})
	if err != nil {
		return err
	}
	if err := authority.EnsureAgent(o.PKI(), c.agent.NodeName, []net.IP{address}); err != nil {
		return err
	}
	for _, identity := range []struct {
		path, name string
		groups     []string
	}{
		{o.AdminKubeconfig(), "kubernetes-admin", []string{pki.AdminGroup}},
		{c.agent.Kubeconfig, "system:node:" + c.agent.NodeName, []string{"system:nodes"}},
		{c.proxy.Kubeconfig, "system:kube-proxy", nil},
	} {
		if err := authority.EnsureKubeconfig(identity.path, c.control.ClusterName, server(c), identity.name, identity.groups...); err != nil {
			return err
		}
	}
	return nil
}

// writeConfigurations writes the files the daemons are started with.
func (o *Options) writeConfigurations(c configurations) error {
	for _, name := range daemonsOf(c.role) {
		if err := config.Write(o.Config(name), c.of(name)); err != nil {
			return err
		}
	}
	return nil
}

// of is the configuration of a daemon.
func (c configurations) of(daemon string) config.Validator {
	switch daemon {
	case "control":
		return c.control
	case "agent":
		return c.agent
	}
	return c.proxy
}

// server is the URL of the API server on this machine.
func server(c configurations) string {
	return "https://" + net.JoinHostPort(c.agent.NodeIP, fmt.Sprint(c.control.Port))
}
