package backendtest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/internal/testenv"
)

// Subject is a backend to test.
type Subject struct {
	// New makes a backend for the network namespace of the calling thread. Its
	// methods are called on threads of the same namespace.
	New func(clusterCIDRs []netip.Prefix) (Backend, error)
	// Damage are commands, each of which takes away or adds something in what
	// the backend programmed for IPv4.
	Damage []string
	// LocalhostNodePorts says that node ports are served on 127.0.0.1 too.
	LocalhostNodePorts bool
	// Neighbours are rules of other programs on the node.
	Neighbours Neighbours
}

// Neighbours is what other programs do on a node.
type Neighbours struct {
	// Set makes their rules, Show prints them without ours.
	Set, Show string
}

// Run tests the backend with both address families.
func Run(t *testing.T, subject Subject) {
	testenv.RequireRoot(t)
	for family, name := range []string{"IPv4", "IPv6"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, family, subject)
			all := append(cases(), localhost(family, subject.LocalhostNodePorts))
			for _, c := range all {
				t.Run(c.name, func(t *testing.T) { w.within(t).check(c) })
			}
			t.Run("a UDP client follows its service", func(t *testing.T) { w.within(t).udpFollows() })
			if hasSCTP() {
				t.Run("SCTP", func(t *testing.T) { w.within(t).sctp() })
			}
			t.Run("connections survive changes", func(t *testing.T) { w.within(t).connectionsSurvive() })
			if subject.Neighbours.Set != "" {
				t.Run("the rules of others are as they were", func(t *testing.T) {
					if now := w.within(t).shell(subject.Neighbours.Show); now != w.neighbours {
						t.Errorf("now:\n%s\nbefore:\n%s", now, w.neighbours)
					}
				})
			}
		})
	}
	t.Run("changes by others are noticed and repaired", func(t *testing.T) {
		t.Parallel()
		newWorld(t, 0, subject).repairs(subject.Damage)
	})
}

// within makes failures those of a part of the test.
func (w *world) within(t *testing.T) *world {
	w.t = t
	for _, h := range w.hosts {
		h.t = t
	}
	return w
}

func (w *world) check(c testCase) {
	w.t.Helper()
	w.program(c.nodePorts, c.offers...)
	// A UDP client that happens to get the port of one in an earlier case would
	// go on with that one's conversation, rightly.
	w.hosts["node"].must(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	for _, e := range c.expect {
		for _, network := range []string{"tcp", "udp"} {
			if problem := w.expect(network, e); problem != "" {
				w.t.Errorf("%s from %s to %s: %s", network, e.from, e.to, problem)
			}
		}
	}
}

// attempts is how often a choice at random is asked before an answer that never
// came counts as impossible: with three choices wrong once in 10^17.
const attempts = 100

// expect returns what is not as expected.
func (w *world) expect(network string, e expectation) string {
	limit := answerLimit
	switch e.answers[0] {
	case "silent", "unserved":
		limit = silenceLimit
	}
	seen := map[string]bool{}
	for i := 0; i < attempts; i++ {
		name, source, err := w.reach(network, e.from, e.to, limit)
		got := name
		if err != nil {
			got = outcome(err)
		}
		switch {
		case e.answers[0] == "unserved":
			if err == nil {
				return fmt.Sprintf("%s answered", name)
			}
			return ""
		case e.answers[0] == "same":
			if seen[got] = true; len(seen) > 1 || err != nil {
				return fmt.Sprintf("got %q after others", got)
			}
			if i == 15 {
				return ""
			}
			continue
		case got == "not permitted" && (e.answers[0] == "refused" || e.answers[0] == "silent"):
			return ""
		case !slices.Contains(e.answers, got):
			return fmt.Sprintf("got %s (%v), want %s", got, err, strings.Join(e.answers, " or "))
		case e.source == "kept" && source != w.address(e.from).String():
			return fmt.Sprintf("%s saw %s, not the client's own address", name, source)
		case e.source == "changed" && source == w.address(e.from).String():
			return fmt.Sprintf("%s saw the client's own address", name)
		}
		seen[got] = true
		if len(seen) == len(e.answers) && (i >= 3 || err != nil) {
			return ""
		}
	}
	return fmt.Sprintf("only %v answered of %v", seen, e.answers)
}

// outcome is refused, silent, not permitted, which is how the kernel tells a
// program on the node itself of either, or the error.
func outcome(err error) string {
	var network net.Error
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return "silent"
	case errors.Is(err, unix.EPERM):
		return "not permitted"
	}
	return err.Error()
}

// udpFollows: a client that keeps its socket is not left with an endpoint that
// is gone, nor without one when there is one again.
func (w *world) udpFollows() {
	w.program(nil, one(here0)...)
	connection, err := w.hosts["here1"].connect("udp", netip.Addr{}, w.addressPort("service:80"), answerLimit)
	if err != nil {
		w.t.Fatal(err)
	}
	defer connection.Close()
	for _, step := range []struct {
		offers []offer
		want   string
	}{
		{one(here0), "here0"}, {one(far), "far"}, {one(nil), "refused"}, {one(here0), "here0"},
		{[]offer{{second: true, endpoints: here0}}, "silent"}, {one(far, affinity), "far"},
	} {
		w.program(nil, step.offers...)
		limit := answerLimit
		if step.want == "silent" {
			limit = silenceLimit
		}
		answer, err := ask(connection, limit)
		got, _, _ := strings.Cut(answer, " ")
		if err != nil {
			got = outcome(err)
		}
		// What has become unserved is no concern of ours: anything but an answer.
		if got != step.want && (step.want != "silent" || err == nil) {
			w.t.Errorf("got %s (%v), want %s", got, err, step.want)
		}
	}
}

// connectionsSurvive: what is connected stays, whatever becomes of its service
// while the endpoint runs; and through a restart of the proxy.
func (w *world) connectionsSurvive() {
	w.program(nil, one(here0, nodePort, externalIP)...)
	var connections []net.Conn
	for from, to := range map[string]string{"here1": "service:80", "client": "node:30080", "stranger": "external:80", "far": "service:80", "node": "service:80"} {
		connection, err := w.hosts[from].connect("tcp", netip.Addr{}, w.addressPort(to), answerLimit)
		if err != nil {
			w.t.Fatalf("%s to %s: %v", from, to, err)
		}
		defer connection.Close()
		connections = append(connections, connection)
	}
	for _, step := range []struct {
		name   string
		offers []offer
	}{
		{"as it was", one(here0, nodePort, externalIP)},
		{"the endpoint terminates and another is there", one([]string{"here0 terminating", "far"}, nodePort, externalIP)},
		{"the endpoint is no endpoint any more", one(far, nodePort, externalIP)},
		{"other policies", one(far, nodePort, externalIP, externalLocal, internalLocal)},
		{"no endpoint at all", one(nil, nodePort, externalIP)},
		{"no service at all", nil},
	} {
		w.program(nil, step.offers...)
		for _, connection := range connections {
			if answer, err := ask(connection, answerLimit); err != nil || !strings.HasPrefix(answer, "here0 ") {
				w.t.Errorf("%s: connection to %s: got %q, %v", step.name, connection.RemoteAddr(), answer, err)
			}
		}
	}
}

// repairs: each damage is noticed, and the next sync serves again.
func (w *world) repairs(damage []string) {
	if len(damage) == 0 {
		w.t.Fatal("the subject names no damage")
	}
	serves := func() {
		w.t.Helper()
		w.program(nil, one(here0, nodePort, balancer(corev1.LoadBalancerIPModeVIP), sourceRange("client"))...)
		for _, e := range []expectation{{"here1", "service:80", here0, ""}, {"client", "node:30080", here0, ""}, {"stranger", "balancer:80", silent, ""}} {
			if problem := w.expect("tcp", e); problem != "" {
				w.t.Fatalf("from %s to %s: %s", e.from, e.to, problem)
			}
		}
	}
	noticed := func() string {
		var found string
		w.hosts["node"].must(func() (err error) {
			found, err = w.backend.Check(w.t.Context())
			return err
		})
		return found
	}
	serves()
	for range 2 {
		if found := noticed(); found != "" {
			w.t.Fatalf("nothing was changed, but %s", found)
		}
	}
	for _, command := range damage {
		w.shell(command)
		if noticed() == "" {
			w.t.Errorf("not noticed: %s", command)
		}
		serves()
		if found := noticed(); found != "" {
			w.t.Errorf("after the repair of %s: %s", command, found)
		}
	}
}

// shell runs a script on the node and returns what it prints.
func (w *world) shell(script string) string {
	w.t.Helper()
	var output []byte
	w.hosts["node"].must(func() (err error) {
		if output, err = exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
			err = fmt.Errorf("%s: %w\n%s", script, err, output)
		}
		return err
	})
	return string(output)
}
