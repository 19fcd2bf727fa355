package check

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// dialLimit bounds one attempt to reach another machine or program.
const dialLimit = 2 * time.Second

// host is how the areas see the machine. Tests replace any of it.
type host struct {
	// root is the folder that stands for /, below which files are read.
	root string
	// privileged: root looks.
	privileged bool

	now      func() time.Time
	kernel   func() (release, architecture string, err error)
	hostname func() (string, error)
	// clock says whether the kernel's clock is kept right by somebody.
	clock func() (clockState, error)
	// links are the addresses of the machine's network links.
	links func() ([]link, error)
	// source is the machine's own address on the way to another, without a packet.
	source func(to string) (netip.Addr, error)
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	// resolve asks the machine's resolver for a name's addresses.
	resolve  func(ctx context.Context, name string) ([]string, error)
	lookPath func(program string) (string, error)
	// run returns what a program prints, and its complaints in the error.
	run func(ctx context.Context, stdin, program string, args ...string) (string, error)
	// space says how full the file system of a path is.
	space func(path string) (space, error)
	// syncs measures how long small writes take to reach the disk below a folder.
	syncs func(ctx context.Context, folder string, limit time.Duration) ([]time.Duration, error)
	// runtime asks a running containerd about itself.
	runtime func(ctx context.Context, socket string) (*runtimeInfo, error)
	// cluster asks the cluster that the machine belongs to.
	cluster func(ctx context.Context, m *machine) (*cluster, error)
}

// link is a network link with its addresses.
type link struct {
	name string
	up   bool
	// addresses with the prefix of their network.
	addresses []netip.Prefix
}

func realHost() *host {
	return &host{
		root: "/", privileged: os.Geteuid() == 0,
		now: time.Now, kernel: uname, hostname: os.Hostname, clock: kernelClock, links: systemLinks, source: sourceAddress,
		dial:     (&net.Dialer{Timeout: dialLimit}).DialContext,
		resolve:  net.DefaultResolver.LookupHost,
		lookPath: findProgram, run: runProgram, space: statfs, syncs: measureSyncs, runtime: askContainerd, cluster: askCluster,
	}
}

// path is where a file of the machine is.
func (h *host) path(file string) string { return filepath.Join(h.root, file) }

// text is a file's content without surrounding blanks, "" if it cannot be read.
func (h *host) text(file string) string {
	data, err := os.ReadFile(h.path(file))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func (h *host) lines(file string) []string {
	text := h.text(file)
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

func (h *host) exists(file string) bool {
	_, err := os.Stat(h.path(file))
	return err == nil
}

// glob lists the files that match, as the machine calls them.
func (h *host) glob(pattern string) []string {
	// The pattern is constant, so it cannot be malformed.
	found, _ := filepath.Glob(h.path(pattern))
	for i, path := range found {
		if relative, err := filepath.Rel(h.root, path); err == nil {
			found[i] = "/" + relative
		}
	}
	return found
}

// systemd says whether it is PID 1.
func (h *host) systemd() bool { return h.exists("run/systemd/system") }

// mount is a line of /proc/self/mounts.
type mount struct {
	device, point, fileSystem string
	options                   []string
}

func (h *host) mounts() []mount {
	var all []mount
	for _, line := range h.lines("proc/self/mounts") {
		if f := strings.Fields(line); len(f) >= 4 {
			all = append(all, mount{f[0], unescape.Replace(f[1]), f[2], strings.Split(f[3], ",")})
		}
	}
	return all
}

// unescape undoes how the kernel writes blanks in mount points.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// mountOf is the mount a path lies on: the last of those with the longest
// matching point, which hides earlier ones.
func (h *host) mountOf(path string) mount {
	var found mount
	for _, m := range h.mounts() {
		inside := m.point == "/" || path == m.point || strings.HasPrefix(path, m.point+"/")
		if inside && len(m.point) >= len(found.point) {
			found = m
		}
	}
	return found
}

func uname() (release, architecture string, err error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", "", err
	}
	return unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:]), nil
}

func systemLinks() ([]link, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var all []link
	for _, i := range interfaces {
		l := link{name: i.Name, up: i.Flags&net.FlagUp != 0}
		addresses, err := i.Addrs()
		if err != nil {
			continue // the link went away meanwhile
		}
		for _, address := range addresses {
			if p, err := netip.ParsePrefix(address.String()); err == nil {
				l.addresses = append(l.addresses, p)
			}
		}
		all = append(all, l)
	}
	return all, nil
}

// sourceAddress connects a UDP socket, which sends nothing: the kernel looks up
// the route and says which address it would use.
func sourceAddress(to string) (netip.Addr, error) {
	conn, err := net.Dial("udp", to)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	address, err := netip.ParseAddrPort(conn.LocalAddr().String())
	return address.Addr().Unmap(), err
}

// findProgram is exec.LookPath, also where an ordinary user's PATH lacks the
// folders of root's programs.
func findProgram(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return path, nil
	}
	for _, folder := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if path, lookErr := exec.LookPath(filepath.Join(folder, program)); lookErr == nil {
			return path, nil
		}
	}
	return "", err
}

func runProgram(ctx context.Context, stdin, program string, args ...string) (string, error) {
	path, err := findProgram(program)
	if err != nil {
		return "", err
	}
	command := exec.CommandContext(ctx, path, args...)
	command.Env = append(os.Environ(), "LC_ALL=C")
	command.WaitDelay = time.Second
	command.Stdin = strings.NewReader(stdin)
	var output, complaints bytes.Buffer
	command.Stdout, command.Stderr = &output, &complaints
	if err := command.Run(); err != nil {
		return output.String(), fmt.Errorf("%s: %w: %s", program, err, bytes.TrimSpace(complaints.Bytes()))
	}
	return output.String(), nil
}

// lexists is exists for links whose target no path leads to, such as namespaces.
func (h *host) lexists(file string) bool {
	_, err := os.Lstat(h.path(file))
	return err == nil
}
