package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// stateFile is where a network is written down in its folder.
const stateFile = "hosts.json"

// Network is a switch and the hosts plugged into it.
type Network struct {
	// Name tells networks of one machine apart. It also is the name of the cgroup
	// that holds those of the hosts.
	Name string `json:"name"`
	// Folder holds the files of all hosts.
	Folder string `json:"folder"`
	// Subnet is the range of the hosts' addresses; its last one is the switch's.
	Subnet netip.Prefix `json:"subnet"`
	// Hosts in the order they were added.
	Hosts []*Host `json:"hosts"`

	// Switch is the machine that joins the hosts. It has an address, so that
	// programs run on it, and Dial, reach every host over its own cable.
	Switch *Host `json:"switch"`
	lives  Lives
}

// DefaultSubnet is a documentation range (RFC 5737): never a real network.
var DefaultSubnet = netip.MustParsePrefix("198.51.100.0/24")

// New makes a network without hosts in an empty folder.
func New(name, folder string, subnet netip.Prefix, lives Lives) (*Network, error) {
	for _, overlaid := range []string{"/etc/", "/var/"} {
		if strings.HasPrefix(filepath.Clean(folder)+"/", overlaid) {
			return nil, fmt.Errorf("folder %s of network %s: must not lie in %s, over which its hosts lay their own files", folder, name, overlaid)
		}
	}
	n := &Network{Name: name, Folder: folder, Subnet: subnet.Masked(), lives: lives}
	n.Switch = &Host{Name: name + "-switch", Address: n.Gateway(), CgroupRoot: "/" + name + "/switch", network: n}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, fmt.Errorf("make folder of network %s: %w", name, err)
	}
	if _, err := os.Stat(filepath.Join(folder, stateFile)); err == nil {
		return nil, fmt.Errorf("network %s is already in %s: take it down first", name, folder)
	}
	if err := n.Switch.Boot(); err != nil {
		return nil, err
	}
	return n, nil
}

// Open finds a network that New made, perhaps in another process, in its folder.
func Open(folder string) (*Network, error) {
	data, err := os.ReadFile(filepath.Join(folder, stateFile))
	if err != nil {
		return nil, fmt.Errorf("find network: %w", err)
	}
	n := &Network{lives: ByItself}
	if err := json.Unmarshal(data, n); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(folder, stateFile), err)
	}
	for _, h := range append([]*Host{n.Switch}, n.Hosts...) {
		h.network = n
	}
	return n, nil
}

func (n *Network) save() error {
	data, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return fmt.Errorf("write down network %s: %w", n.Name, err)
	}
	path := filepath.Join(n.Folder, stateFile)
	if err := os.WriteFile(path+".new", append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write down network %s: %w", n.Name, err)
	}
	return os.Rename(path+".new", path)
}

// Gateway is the switch's address.
func (n *Network) Gateway() netip.Addr {
	address := n.Subnet.Addr().As4()
	for bit := n.Subnet.Bits(); bit < 31; bit++ {
		address[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(address)
}

// Add makes a host with the next address. It is off: prepare its files, then Boot it.
func (n *Network) Add(name string) (*Host, error) {
	if n.Host(name) != nil {
		return nil, fmt.Errorf("network %s has a host %s already", n.Name, name)
	}
	if len(name) == 0 || len(name) > unix.IFNAMSIZ-1 {
		return nil, fmt.Errorf("host name %q: must have 1 to 15 characters, the kernel's limit for a link name", name)
	}
	address := n.Subnet.Addr().Next()
	for slices.ContainsFunc(n.Hosts, func(h *Host) bool { return h.Address == address }) {
		address = address.Next()
	}
	if address == n.Gateway() || !n.Subnet.Contains(address) {
		return nil, fmt.Errorf("network %s has no address left in %s", n.Name, n.Subnet)
	}
	h := &Host{
		Name: name, Address: address, Files: filepath.Join(n.Folder, name), network: n,
		CgroupRoot: "/" + n.Name + "/" + name,
	}
	n.Hosts = append(n.Hosts, h)
	return h, errors.Join(os.MkdirAll(h.Files, 0o755), n.save())
}

// Host finds a host by name; nil if there is none.
func (n *Network) Host(name string) *Host {
	for _, h := range n.Hosts {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// plug connects a host that has just booted.
func (n *Network) plug(h *Host) error {
	if h == n.Switch {
		if err := n.run(h.Name, strings.Fields("ip link add br0 type bridge")); err != nil {
			return err
		}
		if err := n.faultTable(); err != nil {
			return err
		}
		if err := n.run(h.Name, strings.Fields(fmt.Sprintf("ip addr add %s/%d dev br0", h.Address, n.Subnet.Bits()))); err != nil {
			return err
		}
		return n.run(h.Name, strings.Fields("ip link set br0 up"))
	}
	// The cable of a host that was switched off goes a moment later by itself.
	_ = n.run(n.Switch.Name, []string{"ip", "link", "del", h.Name})
	for _, line := range []struct{ at, command string }{
		{n.Switch.Name, fmt.Sprintf("ip link add %s type veth peer name eth0 address %s netns %d", h.Name, h.hardwareAddress(), h.machine().PID)},
		{n.Switch.Name, fmt.Sprintf("ip link set %s master br0 up", h.Name)},
		{h.Name, "ip link set eth0 up"},
		{h.Name, fmt.Sprintf("ip addr add %s/%d dev eth0", h.Address, n.Subnet.Bits())},
		{h.Name, fmt.Sprintf("ip route add default via %s", n.Gateway())},
	} {
		if err := n.run(line.at, strings.Fields(line.command)); err != nil {
			return err
		}
	}
	return nil
}

// hardwareAddress is the same at every boot, as a machine's is: others remember
// it for a while.
func (h *Host) hardwareAddress() net.HardwareAddr {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(h.Name))                          // never fails
	return append(net.HardwareAddr{0x02, 0}, hash.Sum(nil)...) // 02: locally administered
}

// run runs a program in the network namespace of a host or the switch, but in
// our process table: ip finds the other end of a cable by our process ids.
func (n *Network) run(name string, command []string) error {
	h := n.Host(name)
	if h == nil {
		h = n.Switch
	}
	arguments := append([]string{"--target", strconv.Itoa(h.machine().PID), "--net", "--"}, command...)
	if output, err := exec.Command("nsenter", arguments...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %s: %w\n%s", name, strings.Join(command, " "), err, output)
	}
	return nil
}

// Dial connects to an address as a program on the switch would.
func (n *Network) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return n.Switch.Dial(ctx, network, address)
}

// Dial connects to an IP address and port as a program on the host would.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return inNetwork(h, func() (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, address)
	})
}

// Listen listens on an address of the host.
func (h *Host) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return inNetwork(h, func() (net.Listener, error) {
		var config net.ListenConfig
		return config.Listen(ctx, network, address)
	})
}

// inNetwork calls open in the host's network.
func inNetwork[T any](h *Host, open func() (T, error)) (T, error) {
	opened, err := InNetwork("/proc/"+strconv.Itoa(h.machine().PID)+"/ns/net", open)
	if err != nil {
		return opened, fmt.Errorf("host %s: %w", h.Name, err)
	}
	return opened, nil
}

// InNetwork calls open on a thread that is in a network namespace, named by its
// file: a socket stays in the network its thread was in when it was made.
func InNetwork[T any](namespace string, open func() (T, error)) (T, error) {
	var opened T
	target, err := os.Open(namespace)
	if err != nil {
		return opened, fmt.Errorf("enter network: %w", err)
	}
	defer target.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread ends with this goroutine.
		runtime.LockOSThread()
		if err = unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("enter network %s: %w", namespace, err)
			return
		}
		opened, err = open()
	}()
	<-done
	return opened, err
}

// Close switches everything off and removes the network's folder.
func (n *Network) Close(ctx context.Context) error {
	var errs []error
	for _, h := range append([]*Host{n.Switch}, n.Hosts...) {
		if h.On() {
			errs = append(errs, h.PowerOff(ctx))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return errors.Join(removeCgroups("/"+n.Name), os.RemoveAll(n.Folder))
}
