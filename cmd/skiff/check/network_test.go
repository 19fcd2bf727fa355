package check

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/internal/pki"
)

func TestAddress(t *testing.T) {
	t.Parallel()
	vagrant := func(f *fake) {
		f.host.links = func() ([]link, error) {
			return []link{linkOf("lo", "127.0.0.1/8"), linkOf("eth0", "10.0.2.15/24"), linkOf("eth1", "192.168.56.11/24"), linkOf("docker0", "172.17.0.1/16")}, nil
		}
		f.host.source = func(to string) (netip.Addr, error) {
			if strings.HasPrefix(to, "192.168.56.") {
				return netip.MustParseAddr("192.168.56.11"), nil
			}
			return natAddress, nil
		}
	}
	with := func(changes ...func(*fake)) func(*fake) {
		return func(f *fake) {
			for _, change := range changes {
				change(f)
			}
		}
	}
	chosen := func(a string) func(*fake) { return func(f *fake) { f.machine.nodeIP = a } }
	installed := func(f *fake) { f.machine.installed = true }
	links := func(all ...link) func(*fake) {
		return func(f *fake) { f.host.links = func() ([]link, error) { return all, nil } }
	}
	expectAll(t, map[string]symptom{
		"one address":                                {func(*fake) {}, "address", "address", OK, "192.168.56.11 (eth0), on the default route"},
		"the NAT card of VirtualBox":                 {vagrant, "address", "address", Fail, "skiff init --node-ip 192.168.56.11"},
		"a choice made":                              {with(vagrant, chosen("192.168.56.11")), "address", "address", OK, "chosen by --node-ip"},
		"a choice made by the server to join":        {with(vagrant, func(f *fake) { f.machine.servers = []string{"192.168.56.10:6443"} }), "address", "address", Warn, "on the route to 192.168.56.10:6443"},
		"several addresses":                          {twoCards, "address", "address", Warn, "198.51.100.7 (eth1)"},
		"several addresses of a machine that joined": {with(twoCards, installed), "address", "address", OK, "others: 198.51.100.7"},
		"a choice that is not there":                 {chosen("192.0.2.9"), "address", "address", Fail, "no link of this machine has it"},
		"no address": {with(links(linkOf("lo", "127.0.0.1/8")), func(f *fake) {
			f.host.source = func(string) (netip.Addr, error) { return netip.Addr{}, syscall.ENETUNREACH }
		}), "address", "address", Fail, "no IPv4 address"},
		"a network that is also the pods'":     {links(linkOf("eth0", "192.168.56.11/24"), linkOf("eth1", "10.244.7.1/24")), "address", "ranges", Fail, "--pod-cidr"},
		"a network that is also the services'": {links(linkOf("eth0", "192.168.56.11/24"), linkOf("eth1", "10.0.0.1/8")), "address", "ranges", Fail, "10.0.0.0/8 on eth1"},
		"the pods' own bridge":                 {with(installed, links(linkOf("eth0", "192.168.56.11/24"), linkOf("skiff0", "10.244.0.1/24"))), "address", "ranges", OK, "overlap no network"},
		"the link of cluster DNS":              {with(installed, links(linkOf("eth0", "192.168.56.11/24"), linkOf("skiff-dns0", "10.96.0.10/32"))), "address", "ranges", OK, "overlap no network"},
	})
}

func TestName(t *testing.T) {
	t.Parallel()
	of := func(nodes ...node) func(*fake) {
		return func(f *fake) { f.machine.installed = true; f.cluster = &cluster{nodes: nodes} }
	}
	const id = "0123456789abcdef0123456789abcdef"
	expectAll(t, map[string]symptom{
		"a good name":             {func(*fake) {}, "name", "node name", OK, "m1"},
		"a host nobody named":     {func(f *fake) { f.machine.agent.NodeName = "localhost" }, "name", "node name", Fail, "hostnamectl"},
		"a name no node can have": {func(f *fake) { f.machine.agent.NodeName = "web_1" }, "name", "node name", Fail, "--node-name"},
		"a name that has no address": {func(f *fake) {
			f.host.resolve = func(context.Context, string) ([]string, error) { return nil, errors.New("no") }
		}, "name", "host name resolves", Warn, "/etc/hosts"},
		"no machine id":                      {func(f *fake) { f.write("etc/machine-id", "uninitialized\n") }, "name", "machine-id", Fail, "systemd-machine-id-setup"},
		"a copied machine":                   {of(node{name: "m1", machineID: id}, node{name: "m2", machineID: id}), "name", "machine-id", Warn, "node m2"},
		"another machine of the same name":   {of(node{name: "m1", machineID: "other"}), "name", "unique", Fail, "m1"},
		"a name and id that nobody else has": {of(node{name: "m1", machineID: id}, node{name: "m2", machineID: "other"}), "name", "machine-id", OK, "none of the 2 nodes"},
		"a configuration with a mistake":     {func(f *fake) { f.machine.problem = errors.New("line 3: field podCidr not found") }, "name", "configuration", Fail, "podCidr"},
	})
}

func TestPorts(t *testing.T) {
	t.Parallel()
	listen := func(lines ...string) func(*fake) {
		return func(f *fake) {
			f.write("proc/net/tcp6", "  sl local\n"+strings.Join(lines, "\n"))
		}
	}
	// 0x192B is 6443, 0x280A is 10250; state 0A listens, 01 is connected.
	const on6443 = "   0: 00000000000000000000000000000000:192B 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x"
	const from6443 = "   0: 0B38A8C0:192B 0C38A8C0:9999 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 x"
	owned := func(name, cgroup string) func(*fake) {
		return func(f *fake) {
			listen(on6443)(f)
			f.write("proc/99/comm", name+"\n")
			f.write("proc/99/cgroup", cgroup)
			f.write("proc/99/fd/x", "")
			if err := os.Symlink("socket:[4711]", filepath.Join(f.root, "proc/99/fd/3")); err != nil {
				f.t.Fatal(err)
			}
		}
	}
	after := func(change func(*fake)) func(*fake) { return func(f *fake) { f.machine.installed = true; change(f) } }
	expectAll(t, map[string]symptom{
		"free":                               {func(*fake) {}, "ports", "port 6443", OK, "free, for API"},
		"somebody's connection from a port":  {listen(from6443), "ports", "port 6443", OK, "free"},
		"taken by a unit":                    {owned("nginx", "0::/system.slice/nginx.service"), "ports", "port 6443", Fail, "systemctl disable --now nginx.service"},
		"taken by a process":                 {owned("python3", "0::/user.slice/x.scope"), "ports", "port 6443", Fail, "kill 99"},
		"taken by somebody unknown":          {listen(on6443), "ports", "port 6443", Fail, "ss -ltnp"},
		"ours after installation":            {after(owned("skiff-control", "0::/skiff.slice/skiff-control.service")), "ports", "port 6443", OK, "skiff-control (process 99 of skiff-control.service)"},
		"another's after installation":       {after(owned("nginx", "0::/system.slice/nginx.service")), "ports", "port 6443", Fail, "skiff-control (API) cannot run"},
		"nobody's after installation":        {after(func(*fake) {}), "ports", "port 10250", Fail, "skiff-agent (agent) does not run"},
		"a worker needs no port for the API": {func(f *fake) { f.machine.role = operator.Worker; listen(on6443)(f) }, "ports", "port 10250", OK, "free"},
	})
}

func TestFirewall(t *testing.T) {
	t.Parallel()
	ufw := func(status string) func(*fake) {
		return func(f *fake) { f.write("etc/ufw/ufw.conf", "ENABLED=yes\n"); f.programs["ufw"] = status }
	}
	nft := func(chains, table string) func(*fake) {
		return func(f *fake) {
			f.programs["nft --json list chains"] = `{"nftables": [{"metainfo": {"version": "1"}}, ` + chains + `]}`
			f.programs["nft list table inet filter"] = table
			f.programs["nft list table ip filter"] = table
		}
	}
	const input = `{"chain": {"family": "inet", "table": "filter", "name": "input", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}}`
	const forward = `{"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}}`
	const open = `{"chain": {"family": "ip", "table": "filter", "name": "INPUT", "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}}`
	const ours = `{"chain": {"family": "ip", "table": "skiff-policy", "name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}}`
	expectAll(t, map[string]symptom{
		"none":                       {func(*fake) {}, "firewall", "filters", OK, "no firewall"},
		"chains that let through":    {nft(open, ""), "firewall", "filters", OK, ""},
		"chains of our own":          {nft(ours, ""), "firewall", "filters", OK, ""},
		"ufw without our rules":      {ufw("Status: active\n22/tcp ALLOW IN Anywhere\n"), "firewall", "ufw", Warn, "ufw allow 6443/tcp"},
		"ufw without rules for pods": {ufw("22/tcp ALLOW IN Anywhere\n"), "firewall", "ufw", Warn, "ufw route allow from 10.244.0.0/16"},
		"ufw with our rules":         {ufw("6443,6444/tcp ALLOW IN Anywhere\n10250/tcp ALLOW IN 192.168.56.0/24\nAnywhere ALLOW IN 10.244.0.0/16\n"), "firewall", "ufw", OK, ""},
		"firewalld without our rules": {func(f *fake) {
			f.programs["firewall-cmd --state"] = "running\n"
			f.programs["firewall-cmd --list-all-zones"] = "public (active)\n ports: 22/tcp\n"
		}, "firewall", "firewalld", Warn, "--zone=trusted --add-source=10.244.0.0/16"},
		"firewalld with our rules": {func(f *fake) {
			f.programs["firewall-cmd --state"] = "running\n"
			f.programs["firewall-cmd --list-all-zones"] = "ports: 6443/tcp 6444/tcp 10250/tcp\nsources: 10.244.0.0/16\n"
		}, "firewall", "firewalld", OK, ""},
		"a chain that drops":                  {nft(input, "tcp dport 22 accept\n"), "firewall", "chain input", Warn, "nft insert rule inet filter input tcp dport 6444 accept"},
		"a chain that drops all but ours":     {nft(input, "tcp dport { 22, 6443-6444, 10250 } accept\nip saddr 10.244.0.0/16 accept\n"), "firewall", "chain input", OK, "accepts"},
		"rules of UDP do not count":           {nft(input, "udp dport { 6443, 6444, 10250 } accept\nip saddr 10.244.0.0/16 accept\n"), "firewall", "chain input", Warn, "tcp dport 6443"},
		"a chain that forwards nothing":       {nft(forward, ""), "firewall", "chain FORWARD", Warn, "nft insert rule ip filter FORWARD ip saddr 10.244.0.0/16 accept"},
		"a chain that forwards pods' packets": {nft(forward, `iifname "skiff0" accept`), "firewall", "chain FORWARD", OK, ""},
	})
}

// answersAnything is a network on which whoever is asked a DNS question answers it.
func answersAnything(t *testing.T) func(context.Context, string, string) (net.Conn, error) {
	t.Helper()
	listener, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &miekg.Server{PacketConn: listener, Handler: miekg.HandlerFunc(func(w miekg.ResponseWriter, question *miekg.Msg) {
		answer := new(miekg.Msg).SetReply(question)
		if question.Question[0].Qtype == miekg.TypeA {
			answer.Answer = []miekg.RR{&miekg.A{Hdr: miekg.RR_Header{Name: question.Question[0].Name, Rrtype: miekg.TypeA, Class: miekg.ClassINET}, A: net.IPv4(10, 96, 0, 1)}}
		}
		_ = w.WriteMsg(answer)
	})}
	go func() { _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = server.Shutdown() })
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, listener.LocalAddr().String())
	}
}

func TestDNS(t *testing.T) {
	t.Parallel()
	resolv := func(content string) func(*fake) { return func(f *fake) { f.write("etc/resolv.conf", content) } }
	expectAll(t, map[string]symptom{
		"a server that answers":  {func(f *fake) { f.host.dial = answersAnything(f.t) }, "dns", "server 192.0.2.53", OK, "answers"},
		"a server that does not": {func(*fake) {}, "dns", "server 192.0.2.53", Warn, "no network here"},
		"no server":              {resolv(""), "dns", "resolv.conf", Fail, "names no server"},
		"systemd-resolved": {func(f *fake) {
			resolv("nameserver 127.0.0.53")(f)
			f.write("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.1")
		}, "dns", "resolv.conf", OK, "192.0.2.1"},
		"systemd-resolved without a server": {resolv("nameserver 127.0.0.53"), "dns", "resolv.conf", Fail, "resolvectl"},
		"systemd-resolved that leads back": {func(f *fake) {
			resolv("nameserver 127.0.0.53")(f)
			f.write("run/systemd/resolve/resolv.conf", "nameserver 10.96.0.10")
		}, "dns", "resolv.conf", Fail, "no server of its own"},
		"cluster DNS itself":             {resolv("nameserver 10.96.0.10\nnameserver 192.0.2.53"), "dns", "resolv.conf", Warn, "cluster DNS itself"},
		"only a server on the machine":   {resolv("nameserver 127.0.0.1"), "dns", "resolv.conf", Warn, "dnsPolicy: Default"},
		"cluster DNS after installation": {func(f *fake) { f.machine.installed = true; f.host.dial = answersAnything(f.t) }, "dns", "cluster DNS", OK, "is 10.96.0.1"},
		"cluster DNS that is silent":     {func(f *fake) { f.machine.installed = true }, "dns", "cluster DNS", Fail, "does not answer"},
		"servers that proxy.yaml names":  {func(f *fake) { f.machine.proxy.DNS.Upstreams = []string{"192.0.2.77:53"} }, "dns", "upstreams", OK, "192.0.2.77:53"},
	})
}

// apiServer answers as an API server whose clock is off, with a certificate of
// the authority in folder.
func apiServer(t *testing.T, folder string, off time.Duration) string {
	t.Helper()
	if _, err := pki.EnsureControl(pki.Control{Dir: folder, ServiceCIDR: "10.96.0.0/16", ClusterDomain: "cluster.local"}); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(folder, "apiserver.crt"), filepath.Join(folder, "apiserver.key"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", noon.Add(off).Format(http.TimeFormat))
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // whoever only shakes hands hangs up
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestPeersAndTheirClocks(t *testing.T) {
	t.Parallel()
	const peer = "192.168.56.12:6443"
	// joined is a machine of a cluster with one other API server.
	joined := func(off time.Duration, same bool) func(*fake) {
		return func(f *fake) {
			own, others := f.machine.PKI(), f.machine.PKI()
			if !same {
				others = f.t.TempDir()
				if _, err := pki.EnsureAuthority(own, "ca", "kubernetes"); err != nil {
					f.t.Fatal(err)
				}
			}
			address := apiServer(f.t, others, off)
			f.machine.installed, f.machine.servers = true, []string{peer}
			f.cluster = &cluster{nodes: []node{{name: "m1", address: "192.168.56.11", port: 10250}}}
			f.host.dial = func(ctx context.Context, network, to string) (net.Conn, error) {
				if to != peer {
					return nil, syscall.ECONNREFUSED
				}
				return (&net.Dialer{}).DialContext(ctx, network, address)
			}
		}
	}
	refused := func(address string, ready bool) func(*fake) {
		return func(f *fake) {
			joined(0, true)(f)
			f.cluster.nodes = append(f.cluster.nodes, node{name: "m2", address: address, port: 10250, ready: ready})
		}
	}
	expectAll(t, map[string]symptom{
		"an API server that answers":       {joined(0, true), "peers", "API " + peer, OK, "answers"},
		"an API server of another cluster": {joined(0, false), "peers", "API " + peer, Fail, "another cluster"},
		"an agent that is down":            {refused("192.168.56.12", true), "peers", "agent of m2", Fail, "nobody listens"},
		"an agent whose node is not Ready": {refused("192.168.56.12", false), "peers", "agent of m2", Warn, "not Ready"},
		"machines on one network":          {refused("192.168.56.12", true), "peers", "one network", OK, ""},
		"a router between machines":        {refused("198.51.100.12", true), "peers", "one network", Fail, "network segment"},
		"a cluster that is silent":         {func(f *fake) { f.machine.installed = true }, "peers", "cluster", Fail, "skiff status"},
		"a server that drops packets": {func(f *fake) {
			joined(0, true)(f)
			f.host.dial = func(context.Context, string, string) (net.Conn, error) { return nil, os.ErrDeadlineExceeded }
		}, "peers", "API " + peer, Fail, "firewall on the way drops TCP 6443"},
		"a member of the store that is down": {func(f *fake) {
			joined(0, true)(f)
			f.cluster.members = []operator.Member{{Address: "192.168.56.11:6444"}, {Address: "192.168.56.13:6444"}}
		}, "peers", "store 192.168.56.13:6444", Fail, "nobody listens"},
		"clocks that agree":               {joined(time.Second, true), "time", "clock of " + peer, OK, "agrees"},
		"a clock that is a minute behind": {joined(time.Minute, true), "time", "clock of " + peer, Warn, "behind: logs"},
		"a clock that is an hour ahead":   {joined(-time.Hour, true), "time", "clock of " + peer, Fail, "ahead: more than 5m0s"},
	})
}
