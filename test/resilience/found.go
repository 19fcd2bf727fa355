package resilience

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/pki"
	"github.com/skiff-run/skiff/test/host"
)

// configPath is where the hosts have skiff-control's configuration.
const configPath = "/etc/skiff/control.yaml"

// authorities are the files that all control machines have the same of.
var authorities = []string{"ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub", "store-ca.crt", "store-ca.key"}

// Found makes control machines, without agents, on new hosts of the network
// with these names, and makes one cluster of them: what init and join do, less
// what only nodes need. The last one has a small disk. The daemons run until ctx ends.
func Found(ctx context.Context, network *host.Network, program string, names ...string) (*Cluster, error) {
	c := &Cluster{ctx: ctx, Network: network, LongestCut: 2 * time.Second, LongestPause: 2 * time.Second}
	for i, name := range names {
		if err := c.add(ctx, program, name, i == len(names)-1); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// add makes one more control machine and adds it to the cluster, or founds it.
func (c *Cluster) add(ctx context.Context, program, name string, small bool) error {
	h, err := c.Network.Add(name)
	if err != nil {
		return err
	}
	if err := h.Hide("/etc/skiff", "/var/lib/skiff"); err != nil {
		return err
	}
	m := &Member{
		Host: h, Program: program, Config: configPath, LogPath: filepath.Join(c.Network.Folder, name+".log"), ID: "member-" + name, Small: small,
	}
	authority, err := c.certify(m)
	if err != nil {
		return err
	}
	if err := c.configure(m, len(c.Members) > 0); err != nil {
		return err
	}
	if err := m.boot(ctx); err != nil {
		return err
	}
	settings := config.DefaultControl()
	client, err := administrator(authority)
	if err != nil {
		return err
	}
	server := NewServer(name, net.JoinHostPort(h.Address.String(), strconv.Itoa(settings.Port)), client, c.Network.Dial)
	m.Start(ctx)
	c.Members, c.Servers = append(c.Members, m), append(c.Servers, server)
	if len(c.Members) > 1 {
		err = eventually(ctx, 2*writeAgain, "add "+name, func(ctx context.Context) error {
			return c.Servers[0].addMember(ctx, m.ID, net.JoinHostPort(h.Address.String(), strconv.Itoa(settings.PeerPort)))
		})
		if err != nil {
			return err
		}
	}
	return c.voting(ctx, m)
}

// boot switches the machine on, with the disk it has.
func (m *Member) boot(ctx context.Context) error {
	if err := m.Boot(); err != nil || !m.Small {
		return err
	}
	return m.SmallDisk(ctx, dataFolder, smallDisk)
}

// configure writes the daemon's configuration while the machine is off.
func (c *Cluster) configure(m *Member, join bool) error {
	settings := config.DefaultControl()
	settings.NodeName, settings.MemberID, settings.AdvertiseAddress, settings.Join = m.Name, m.ID, m.Address.String(), join
	return config.Write(m.Path(configPath), settings)
}

// certify makes a control machine's certificates.
func (c *Cluster) certify(m *Member) (*pki.Authority, error) {
	dir := m.Path("/etc/skiff/pki")
	if len(c.Members) > 0 {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		for _, name := range authorities {
			data, err := os.ReadFile(filepath.Join(c.Members[0].Path("/etc/skiff/pki"), name))
			if err != nil {
				return nil, fmt.Errorf("copy the authorities: %w", err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				return nil, fmt.Errorf("copy the authorities: %w", err)
			}
		}
	}
	settings := config.DefaultControl()
	address := net.IP(m.Address.AsSlice())
	if err := pki.EnsureStoreMember(dir, m.ID, []string{m.Name}, []net.IP{address}); err != nil {
		return nil, err
	}
	return pki.EnsureControl(pki.Control{
		Dir: dir, Names: []string{m.Name}, Addresses: []net.IP{address}, ServiceCIDR: settings.ServiceCIDR, ClusterDomain: settings.ClusterDomain,
	})
}

// administrator is what a client of the cluster's administrator shows.
func administrator(authority *pki.Authority) (*tls.Config, error) {
	pair, err := authority.Sign(pki.Request{CommonName: "kubernetes-admin", Organizations: []string{pki.AdminGroup}, Client: true})
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.Certificate)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}, nil
}

// voting waits until a member serves and has a vote.
func (c *Cluster) voting(ctx context.Context, m *Member) error {
	return eventually(ctx, 2*writeAgain, "make "+m.Name+" a voter", func(ctx context.Context) error {
		if err := c.server(m).ready(ctx); err != nil {
			return err
		}
		status, err := c.server(m).status(ctx)
		if err == nil && status.Store.Voters != len(c.Members) {
			err = fmt.Errorf("%s knows %d voters of %d", m.Name, status.Store.Voters, len(c.Members))
		}
		return err
	})
}
