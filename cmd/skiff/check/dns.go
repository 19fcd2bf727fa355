package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	miekg "github.com/miekg/dns"
)

// resolvedStubs are systemd-resolved's own addresses; its list has the real servers.
var resolvedStubs = []string{"127.0.0.53", "127.0.0.54"}

const resolvedList = "run/systemd/resolve/resolv.conf"

// nameservers are those of a file in the format of resolv.conf.
func (h *host) nameservers(file string) []string {
	var servers []string
	for _, line := range h.lines(file) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "nameserver" {
			servers = append(servers, f[1])
		}
	}
	return servers
}

func checkDNS(ctx context.Context, e *examination) {
	servers := e.resolvers()
	var asking sync.WaitGroup
	answers := make([]error, len(servers))
	for i, server := range servers {
		asking.Go(func() { _, answers[i] = e.ask(ctx, net.JoinHostPort(server, "53"), ".", miekg.TypeNS) })
	}
	var clusterAnswer []string
	var clusterErr error
	clusterDNS := e.installed && e.proxy.DNS.Enabled
	if clusterDNS {
		asking.Go(func() {
			clusterAnswer, clusterErr = e.ask(ctx, net.JoinHostPort(e.proxy.DNS.Address, "53"), "kubernetes.default.svc."+e.proxy.DNS.ClusterDomain+".", miekg.TypeA)
		})
	}
	asking.Wait()
	for i, server := range servers {
		if err := answers[i]; err != nil {
			e.warn("server "+server, "does not answer ("+err.Error()+"): names outside the cluster are resolved slowly or not at all, also where images are pulled from",
				"cat /etc/resolv.conf   # name one that answers", "resolvectl dns LINK SERVER   # where systemd-resolved runs")
		} else {
			e.ok("server "+server, "answers")
		}
	}
	if !clusterDNS {
		return
	}
	name := "kubernetes.default.svc." + e.proxy.DNS.ClusterDomain
	switch {
	case clusterErr != nil:
		e.fail("cluster DNS", fmt.Sprintf("%s does not answer: %v", e.proxy.DNS.Address, clusterErr), append(e.startCommand("skiff-proxy"), "nft list table ip skiff-proxy | grep "+e.proxy.DNS.Address)...)
	case len(clusterAnswer) == 0:
		e.fail("cluster DNS", fmt.Sprintf("%s knows no %s: the proxy has not heard from the API", e.proxy.DNS.Address, name), e.startCommand("skiff-proxy")...)
	default:
		e.ok("cluster DNS", "%s answers: %s is %s", e.proxy.DNS.Address, name, strings.Join(clusterAnswer, ", "))
	}
}

// resolvers are the servers that cluster DNS will ask for other names, found as
// it finds them.
func (e *examination) resolvers() []string {
	if upstreams := e.proxy.DNS.Upstreams; len(upstreams) > 0 {
		var servers []string
		for _, each := range upstreams {
			if host, port, err := net.SplitHostPort(each); err == nil && port == "53" {
				servers = append(servers, host)
			}
		}
		e.ok("upstreams", "%s, by proxy.yaml", strings.Join(upstreams, ", "))
		return servers
	}
	servers := e.nameservers("etc/resolv.conf")
	if len(servers) == 0 {
		e.fail("resolv.conf", "/etc/resolv.conf names no server: no name outside the cluster is resolved, and images cannot be pulled", "echo 'nameserver 192.0.2.53' > /etc/resolv.conf   # your network's")
		return nil
	}
	stub := func(s string) bool { return slices.Contains(resolvedStubs, s) }
	loop := func(s string) bool { return s == e.proxy.DNS.Address || slices.Contains(e.agent.ClusterDNS, s) }
	loopback := func(s string) bool {
		a, err := netip.ParseAddr(s)
		return err == nil && a.IsLoopback()
	}
	if slices.ContainsFunc(servers, stub) {
		behind := slices.DeleteFunc(e.nameservers(resolvedList), loop)
		if len(behind) == 0 {
			e.fail("resolv.conf", "names systemd-resolved's stub, which has no server of its own: no name outside the cluster is resolved", "resolvectl dns LINK SERVER", "resolvectl status")
			return nil
		}
		e.ok("resolv.conf", "systemd-resolved's stub; cluster DNS and pods ask the servers behind it: %s", strings.Join(behind, ", "))
		return behind
	}
	switch {
	case slices.ContainsFunc(servers, loop):
		e.warn("resolv.conf", fmt.Sprintf("names cluster DNS itself (%s): it leaves that out, and while it is down this machine resolves nothing, not even registries' names", e.proxy.DNS.Address),
			"sed -i '/"+e.proxy.DNS.Address+"/d' /etc/resolv.conf   # and name your network's server")
		servers = slices.DeleteFunc(servers, loop)
	case !slices.ContainsFunc(servers, func(s string) bool { return !loopback(s) }):
		e.warn("resolv.conf", "names only servers on this machine itself ("+strings.Join(servers, ", ")+"), which pods with dnsPolicy: Default do not reach",
			"echo 'nameserver 192.0.2.53' > /etc/resolv.conf   # your network's server")
	default:
		e.ok("resolv.conf", "%s", strings.Join(servers, ", "))
	}
	return servers
}

// errSilent is a server that says nothing in time.
var errSilent = errors.New("no answer in time")

// ask sends one question by UDP. Any answer counts; of addresses the answer is returned.
func (e *examination) ask(ctx context.Context, server, name string, kind uint16) ([]string, error) {
	conn, err := e.dial(ctx, "udp", server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// Within the limit, asked again once: a packet may be lost.
	client := &miekg.Client{Timeout: dialLimit / 2}
	question := new(miekg.Msg).SetQuestion(name, kind)
	var answer *miekg.Msg
	for range 2 {
		if answer, _, err = client.ExchangeWithConnContext(ctx, question, &miekg.Conn{Conn: conn}); err == nil {
			break
		}
	}
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return nil, errSilent
	}
	if err != nil {
		return nil, err
	}
	if answer.Rcode == miekg.RcodeServerFailure && kind != miekg.TypeA {
		return nil, errors.New("it answers that its own servers fail it")
	}
	var addresses []string
	for _, record := range answer.Answer {
		if a, ok := record.(*miekg.A); ok {
			addresses = append(addresses, a.A.String())
		}
	}
	return addresses, nil
}
