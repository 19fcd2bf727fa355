package ipvs

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	mobyipvs "github.com/moby/ipvs"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// available says whether the kernel has IPVS loaded.
func available() bool {
	_, err := os.Stat("/proc/net/ip_vs")
	return err == nil
}

// load loads IPVS if the kernel has it.
func load() error {
	if available() {
		return nil
	}
	output, err := exec.Command("modprobe", "ip_vs").CombinedOutput()
	if available() {
		return nil
	}
	said := strings.TrimSpace(string(output))
	if said == "" && err != nil {
		said = err.Error()
	}
	// systemd's unit hides the modules from the daemon, which may not load any.
	return fmt.Errorf("the kernel lacks IPVS, or it is not loaded: run modprobe ip_vs, and name it in /etc/modules-load.d (%w; here: %s)", unix.ENOENT, said)
}

// kernel is IPVS of one network namespace.
type kernel struct{ handle *mobyipvs.Handle }

func openKernel() (*kernel, error) {
	handle, err := mobyipvs.New("")
	if err != nil {
		return nil, fmt.Errorf("talk to IPVS: %w", err)
	}
	return &kernel{handle}, nil
}

func (k *kernel) close() { k.handle.Close() }

var protocols = map[corev1.Protocol]uint16{
	corev1.ProtocolTCP: unix.IPPROTO_TCP, corev1.ProtocolUDP: unix.IPPROTO_UDP, corev1.ProtocolSCTP: unix.IPPROTO_SCTP,
}

// service is a virtual service as the library has it.
func service(k key, s settings) *mobyipvs.Service {
	out := &mobyipvs.Service{
		Address: k.address.AsSlice(), Protocol: protocols[k.protocol], Port: k.port, AddressFamily: unix.AF_INET,
		SchedName: s.scheduler, Flags: s.flags, Timeout: uint32(s.affinity / time.Second), Netmask: 0xffffffff,
	}
	if k.address.Is6() {
		out.AddressFamily, out.Netmask = unix.AF_INET6, 128
	}
	return out
}

// do does one operation. That something is there already, or gone already, is
// no error.
func (k *kernel) do(o operation) error {
	s := service(o.key, o.settings)
	d := &mobyipvs.Destination{Weight: o.weight, ConnectionFlags: mobyipvs.ConnectionFlagMasq, AddressFamily: s.AddressFamily}
	if o.destination.IsValid() {
		d.Address, d.Port = o.destination.Addr().AsSlice(), o.destination.Port()
	}
	var err error
	switch o.verb {
	case addService:
		if err = k.handle.NewService(s); errors.Is(err, unix.EEXIST) {
			err = k.handle.UpdateService(s)
		}
		if errors.Is(err, unix.ENOENT) {
			err = fmt.Errorf("the kernel lacks the scheduler (modprobe ip_vs_%s), set ipvs.scheduler to another: %w", o.scheduler, err)
		}
	case editService:
		err = k.handle.UpdateService(s)
	case deleteService:
		if err = k.handle.DelService(s); errors.Is(err, unix.ESRCH) {
			err = nil
		}
	case addDestination:
		if err = k.handle.NewDestination(s, d); errors.Is(err, unix.EEXIST) {
			err = k.handle.UpdateDestination(s, d)
		}
	case editDestination:
		err = k.handle.UpdateDestination(s, d)
	case deleteDestination:
		if err = k.handle.DelDestination(s, d); errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("ipvsadm %s: %w", o, err)
	}
	return nil
}

// services are all virtual services of the kernel that have an address, without
// their destinations.
func (k *kernel) services() (map[key]settings, error) {
	all, err := k.handle.GetServices()
	if err != nil {
		return nil, fmt.Errorf("list virtual services: %w", err)
	}
	out := make(map[key]settings, len(all))
	for _, s := range all {
		found, valid := keyOf(s)
		if !valid {
			continue
		}
		out[found] = settingsOf(s)
	}
	return out, nil
}

func keyOf(s *mobyipvs.Service) (key, bool) {
	address, valid := netip.AddrFromSlice(s.Address)
	if !valid {
		return key{}, false // one by firewall mark
	}
	for protocol, number := range protocols {
		if number == s.Protocol {
			return key{protocol, address.Unmap(), s.Port}, true
		}
	}
	return key{}, false
}

func settingsOf(s *mobyipvs.Service) settings {
	out := settings{scheduler: s.SchedName, flags: s.Flags & flagsOurs}
	if out.flags&flagPersistent != 0 {
		out.affinity = time.Duration(s.Timeout) * time.Second
	}
	return out
}

// destination as the kernel has it.
type destination struct {
	weight, connections int
}

// destinations of a virtual service.
func (k *kernel) destinations(of key) (map[netip.AddrPort]destination, error) {
	all, err := k.handle.GetDestinations(service(of, settings{}))
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list destinations of %s: %w", of, err)
	}
	out := make(map[netip.AddrPort]destination, len(all))
	for _, d := range all {
		if address, valid := netip.AddrFromSlice(d.Address); valid {
			out[netip.AddrPortFrom(address.Unmap(), d.Port)] = destination{weight: d.Weight, connections: d.ActiveConnections + d.InactiveConnections}
		}
	}
	return out, nil
}

// present reads the destinations of virtual services.
func (k *kernel) present(services map[key]settings) (map[key]*present, error) {
	out := make(map[key]*present, len(services))
	for each, s := range services {
		destinations, err := k.destinations(each)
		if err != nil {
			return nil, err
		}
		p := &present{settings: s, weights: make(map[netip.AddrPort]int, len(destinations))}
		for address, d := range destinations {
			p.weights[address] = d.weight
		}
		out[each] = p
	}
	return out, nil
}

// timeouts of connections; 0 leaves the kernel's.
type timeouts struct{ tcp, tcpFin, udp time.Duration }

func (k *kernel) setTimeouts(t timeouts) error {
	if t == (timeouts{}) {
		return nil
	}
	if err := k.handle.SetConfig(&mobyipvs.Config{TimeoutTCP: t.tcp, TimeoutTCPFin: t.tcpFin, TimeoutUDP: t.udp}); err != nil {
		return fmt.Errorf("set IPVS' timeouts to tcp %s, tcpFin %s, udp %s: %w", t.tcp, t.tcpFin, t.udp, err)
	}
	return nil
}
