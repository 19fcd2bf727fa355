package check

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"github.com/skiff-run/skiff/internal/operator"
)

// serverName is in every API server's certificate, whatever it is called by.
const serverName = "kubernetes"

// target is something on another machine that this one has to reach.
type target struct {
	what, address string
	// name the certificate must be made out to, if that is known, by the authority.
	name, authority string
	// down: the cluster itself says that it does not run.
	down bool
}

// targets of this machine, as far as it knows of others.
func (e *examination) targets(ctx context.Context) []target {
	var all []target
	for _, server := range e.servers {
		all = append(all, target{what: "API " + server, address: server, name: serverName, authority: "ca"})
	}
	c, err := e.cluster(ctx, e.machine)
	if err != nil {
		return all
	}
	for _, m := range c.members {
		if m.Address != e.control.Peer() {
			all = append(all, target{what: "store " + m.Address, address: m.Address, authority: "store-ca"})
		}
	}
	if e.role != operator.Control {
		return all
	}
	for _, n := range c.nodes {
		if n.name != e.agent.NodeName && n.address != "" && n.port != 0 {
			all = append(all, target{
				what: "agent of " + n.name, address: net.JoinHostPort(n.address, strconv.Itoa(int(n.port))), authority: "ca", down: !n.ready,
			})
		}
	}
	return all
}

func checkPeers(ctx context.Context, e *examination) {
	targets := e.targets(ctx)
	results := make([]error, len(targets))
	var reaching sync.WaitGroup
	for i, t := range targets {
		reaching.Go(func() { results[i] = e.reach(ctx, t) })
	}
	reaching.Wait()
	for i, t := range targets {
		e.reached(t, results[i])
	}
	e.clusterAnswers(ctx)
	e.segment(ctx)
}

func (e *examination) reach(ctx context.Context, t target) error {
	// Before a join there is no authority, and any server will do.
	var roots []*x509.Certificate
	if e.installed {
		var err error
		if roots, err = e.authority(t.authority); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
			return fmt.Errorf("read the authority %s of this machine: %w", t.authority, err)
		}
	}
	conn, err := e.tlsTo(ctx, t.address, t.name, roots)
	if err != nil {
		return err
	}
	return conn.Close()
}

// reached says what became of an attempt, and what usually is behind it.
func (e *examination) reached(t target, err error) {
	host, port, _ := net.SplitHostPort(t.address)
	var different stranger
	timeout := net.Error(nil)
	switch {
	case err == nil:
		e.ok(t.what, "answers")
	case errors.As(err, &different):
		e.fail(t.what, "is not signed by this machine's authority, so it belongs to another cluster, or somebody answers in its place: "+err.Error(), "skiff pki check", "skiff status")
	case errors.Is(err, syscall.ECONNREFUSED):
		found := "nobody listens there: its daemon does not run"
		if t.down {
			e.warn(t.what, found+"; the node is not Ready either", "systemctl status 'skiff-*'   # on "+host)
			return
		}
		e.fail(t.what, found, "systemctl status 'skiff-*'   # on "+host)
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		found := "no answer: the machine is off, or a firewall on the way drops TCP " + port
		remedy := []string{"ping -c 3 " + host, "skiff check   # there: it prints the rules its firewall needs"}
		if t.down {
			e.warn(t.what, found+"; the node is not Ready either", remedy...)
			return
		}
		e.fail(t.what, found, remedy...)
	default:
		e.fail(t.what, "cannot be reached: "+err.Error(), "ip route get "+host)
	}
}

// clusterAnswers says when a machine of a cluster gets no answer from it.
func (e *examination) clusterAnswers(ctx context.Context) {
	if !e.installed || !e.rootOnly("the cluster") {
		return
	}
	c, err := e.cluster(ctx, e.machine)
	if err != nil {
		e.fail("cluster", "does not answer: "+err.Error(), "skiff status")
		return
	}
	e.ok("cluster", "answers; it has %d nodes", len(c.nodes))
}

// segment: pods of other machines are reached by routes through these, so each
// must be on a network that this one is on.
func (e *examination) segment(ctx context.Context) {
	links, err := e.links()
	if err != nil {
		return // said with the address
	}
	var others []netip.Addr
	if c, err := e.cluster(ctx, e.machine); err == nil {
		for _, n := range c.nodes {
			if a, err := netip.ParseAddr(n.address); err == nil && n.name != e.agent.NodeName {
				others = append(others, a)
			}
		}
	} else {
		for _, server := range e.servers {
			if a, err := netip.ParseAddrPort(server); err == nil {
				others = append(others, a.Addr())
			}
		}
	}
	var far []string
	for _, other := range others {
		direct := slices.ContainsFunc(links, func(l link) bool {
			return l.up && slices.ContainsFunc(l.addresses, func(p netip.Prefix) bool { return p.Contains(other) })
		})
		if !direct {
			far = append(far, other.String())
		}
	}
	switch {
	case len(far) > 0:
		e.fail("one network", fmt.Sprintf("between this machine and %v is a router: pods there are reached by routes, for which all machines must be on one network segment", far),
			e.command()+" --node-ip ADDRESS   # one on the network they share", "ip route get "+far[0])
	case len(others) > 0:
		e.ok("one network", "with the other machines, as routes to their pods need")
	}
}
