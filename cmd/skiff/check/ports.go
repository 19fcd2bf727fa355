package check

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/skiff-run/skiff/internal/operator"
)

// port is one that a daemon of ours listens on.
type port struct {
	number  int
	purpose string
	daemon  string
	// flag chooses another.
	flag string
	// from says who has to reach it: "" nobody from outside.
	from string
}

// ports of this machine in its role.
func (m *machine) ports() []port {
	var all []port
	if m.role == operator.Control {
		all = append(all,
			port{m.control.Port, "API", "skiff-control", "--port", "all machines and users"},
			port{m.control.PeerPort, "store", "skiff-control", "--peer-port", "control machines"})
	}
	all = append(all,
		port{m.agent.Port, "agent", "skiff-agent", "--agent-port", "control machines"},
		port{m.proxy.HealthPort, "proxy health", "skiff-proxy", "--proxy-health-port", "outside load balancers"},
		port{m.proxy.MetricsPort, "proxy metrics", "skiff-proxy", "--proxy-metrics-port", ""})
	return slices.DeleteFunc(all, func(p port) bool { return p.number == 0 })
}

// listener is a socket somebody listens on.
type listener struct {
	address netip.Addr
	port    int
	inode   string
}

// listeners are those of TCP, of both families.
func (h *host) listeners() []listener {
	var found []listener
	for _, file := range []string{"proc/net/tcp", "proc/net/tcp6"} {
		for _, line := range h.lines(file) {
			f := strings.Fields(line)
			const listening = "0A"
			if len(f) < 10 || f[3] != listening {
				continue
			}
			host, number, _ := strings.Cut(f[1], ":")
			n, err := strconv.ParseUint(number, 16, 16)
			if err != nil {
				continue // the heading
			}
			found = append(found, listener{kernelAddress(host), int(n), f[9]})
		}
	}
	return found
}

// kernelAddress reads an address of /proc/net: hexadecimal words of four bytes,
// each with its lowest byte first.
func kernelAddress(text string) netip.Addr {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw)%4 != 0 {
		return netip.Addr{}
	}
	for i := 0; i < len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	a, _ := netip.AddrFromSlice(raw)
	return a.Unmap()
}

// process is one that has a socket.
type process struct {
	id   int
	name string
	// unit is the systemd unit it belongs to, if any.
	unit string
}

// owner finds the process that has a socket. Only root sees those of others.
func (h *host) owner(inode string) (process, bool) {
	target := "socket:[" + inode + "]"
	for _, folder := range h.glob("/proc/[0-9]*") {
		descriptors, err := os.ReadDir(h.path(folder + "/fd"))
		if err != nil {
			continue
		}
		for _, d := range descriptors {
			if link, err := os.Readlink(h.path(filepath.Join(folder, "fd", d.Name()))); err == nil && link == target {
				id, _ := strconv.Atoi(filepath.Base(folder)) // digits, by the pattern
				return process{id, h.text(folder + "/comm"), h.unitOf(folder)}, true
			}
		}
	}
	return process{}, false
}

// unitOf is the service of a process, by its cgroup.
func (h *host) unitOf(folder string) string {
	for _, line := range h.lines(folder + "/cgroup") {
		for part := range strings.SplitSeq(line, "/") {
			if strings.HasSuffix(part, ".service") {
				return part
			}
		}
	}
	return ""
}

func (p process) String() string {
	if p.unit != "" {
		return fmt.Sprintf("%s (process %d of %s)", p.name, p.id, p.unit)
	}
	return fmt.Sprintf("%s (process %d)", p.name, p.id)
}

// end is the command that ends it for good.
func (p process) end() string {
	if p.unit != "" {
		return "systemctl disable --now " + p.unit
	}
	return fmt.Sprintf("kill %d", p.id)
}

// truncated is a program's name as the kernel keeps it.
func truncated(name string) string { return name[:min(len(name), 15)] }

func checkPorts(_ context.Context, e *examination) {
	listeners := e.listeners()
	for _, p := range e.ports() {
		name := fmt.Sprintf("port %d", p.number)
		i := slices.IndexFunc(listeners, func(l listener) bool { return l.port == p.number })
		if i < 0 {
			if !e.installed {
				e.ok(name, "free, for %s", p.purpose)
			} else {
				e.fail(name, fmt.Sprintf("nobody listens: %s (%s) does not run", p.daemon, p.purpose), e.startCommand(p.daemon)...)
			}
			continue
		}
		by, known := e.owner(listeners[i].inode)
		ours := known && by.name == truncated(p.daemon)
		switch {
		case ours:
			e.ok(name, "%s: %s", p.purpose, by)
		case !known && e.installed:
			e.ok(name, "%s: somebody listens", p.purpose)
			e.skipped = append(e.skipped, fmt.Sprintf("who has port %d", p.number))
		case !known:
			e.fail(name, fmt.Sprintf("taken, needed for %s", p.purpose), fmt.Sprintf("ss -ltnp 'sport = :%d'   # as root: who has it", p.number))
		case e.installed:
			e.fail(name, fmt.Sprintf("taken by %s, so %s (%s) cannot run", by, p.daemon, p.purpose), append([]string{by.end()}, e.startCommand(p.daemon)...)...)
		default:
			e.fail(name, fmt.Sprintf("taken by %s, needed for %s", by, p.purpose), by.end(), fmt.Sprintf("%s %s PORT   # or another port here", e.command(), p.flag))
		}
	}
}

// startCommand starts a daemon that should run, and shows why it does not.
func (e *examination) startCommand(daemon string) []string {
	if e.systemd() && e.Root == "/" {
		return []string{"systemctl start " + daemon, "journalctl -u " + daemon + " -n 20"}
	}
	return []string{"skiff up --detach", "tail -n 20 " + e.Log(strings.TrimPrefix(daemon, "skiff-"))}
}
