package backendtest

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"
)

// hasSCTP says whether the kernel has SCTP, or can load it.
func hasSCTP() bool {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err == nil {
		unix.Close(socket)
	}
	return err == nil
}

// socketAddress is an address as the kernel's calls take it, and its family.
func socketAddress(at netip.AddrPort) (int, unix.Sockaddr) {
	if at.Addr().Is6() {
		return unix.AF_INET6, &unix.SockaddrInet6{Addr: at.Addr().As16(), Port: int(at.Port())}
	}
	return unix.AF_INET, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}
}

// serveSCTP answers as serve does, over SCTP and on one address: Go has streams
// of TCP only, but what it does with them works with those of SCTP too.
func (h *host) serveSCTP(name string, at netip.AddrPort) {
	h.t.Helper()
	var listener net.Listener
	h.must(func() error {
		family, address := socketAddress(at)
		socket, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_SCTP)
		if err != nil {
			return fmt.Errorf("open SCTP socket: %w", err)
		}
		file := os.NewFile(uintptr(socket), "sctp")
		defer file.Close() // the listener has a copy
		if err := errors.Join(unix.Bind(socket, address), unix.Listen(socket, 16)); err != nil {
			return fmt.Errorf("listen on SCTP port %s: %w", at, err)
		}
		listener, err = net.FileListener(file)
		return err
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { // until the client ends, or the test's namespaces do
				defer connection.Close()
				for lines := bufio.NewScanner(connection); lines.Scan(); {
					fmt.Fprintf(connection, "%s %s\n", name, sourceOf(connection.RemoteAddr()))
				}
			}()
		}
	}()
	h.t.Cleanup(func() { listener.Close(); <-ended })
}

// connectSCTP opens an association from an address of the host; any if it is not valid.
func connectSCTP(from netip.Addr, to netip.AddrPort, limit time.Duration) (net.Conn, error) {
	family, address := socketAddress(to)
	socket, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return nil, fmt.Errorf("open SCTP socket: %w", err)
	}
	file := os.NewFile(uintptr(socket), "sctp")
	defer file.Close() // the connection has a copy
	patience := unix.NsecToTimeval(limit.Nanoseconds())
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience); err != nil {
		return nil, fmt.Errorf("limit SCTP connect: %w", err)
	}
	if from.IsValid() {
		_, local := socketAddress(netip.AddrPortFrom(from, 0))
		if err := unix.Bind(socket, local); err != nil {
			return nil, fmt.Errorf("bind SCTP socket to %s: %w", from, err)
		}
	}
	switch err := unix.Connect(socket, address); {
	case errors.Is(err, unix.EINPROGRESS), errors.Is(err, unix.EAGAIN):
		return nil, os.ErrDeadlineExceeded
	case err != nil:
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(file)
}

// withSCTP gives the service a port of SCTP too.
func withSCTP(w *world, s *corev1.Service) {
	s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "sctp", Protocol: corev1.ProtocolSCTP, Port: 80})
	if s.Spec.Type == corev1.ServiceTypeNodePort {
		s.Spec.Ports[2].NodePort = 30080
	}
}

func sctpSlicePort(number int32) discoveryv1.EndpointPort {
	return discoveryv1.EndpointPort{Name: ptr.To("sctp"), Port: &number, Protocol: ptr.To(corev1.ProtocolSCTP)}
}

// sctp: what holds for TCP holds for SCTP.
func (w *world) sctp() {
	for _, pod := range []string{"here0", "here1", "far"} {
		w.hosts[pod].serveSCTP(pod, netip.AddrPortFrom(w.address(pod), 8080))
	}
	for _, c := range []testCase{
		{"every endpoint", nil, one(everyone, nodePort, withSCTP), []expectation{
			{"here0", "service:80", everyone, ""}, {"node", "service:80", everyone, ""}, {"client", "service:80", everyone, "changed"}, {"client", "node:30080", everyone, "changed"},
		}},
		{"to itself", nil, one(here0, withSCTP), []expectation{{"here0", "service:80", here0, "changed"}, {"here1", "service:80", here0, "kept"}}},
		{"the policy Local", nil, one([]string{"here0", "far"}, nodePort, externalLocal, withSCTP), []expectation{{"client", "node:30080", here0, "kept"}}},
		{"affinity", nil, one(everyone, affinity, withSCTP), []expectation{{"here0", "service:80", []string{"same"}, ""}}},
		{"no endpoint", nil, one(nil, nodePort, withSCTP), []expectation{{"here0", "service:80", unserved, ""}, {"client", "node:30080", unserved, ""}}},
	} {
		w.program(c.nodePorts, c.offers...)
		for _, e := range c.expect {
			if problem := w.expect("sctp", e); problem != "" {
				w.t.Errorf("%s: from %s to %s: %s", c.name, e.from, e.to, problem)
			}
		}
	}
}
