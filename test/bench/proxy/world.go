package main

import (
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"
)

// world is the network: a client and two hosts of pods around a node.
type world struct {
	names    []string
	handles  map[string]netns.NsHandle
	listener []net.Listener
}

// Every address of these ranges is a pod, on host a or b.
const (
	rangeA = "10.128.0.0/10"
	rangeB = "10.192.0.0/16"
	podB   = "10.192.0.1"
)

// podPort is where every pod listens.
const podPort = 8080

const setup = `
for h in client a b; do
  ip -n %[1]snode link add name $h type veth peer name eth0 netns %[1]s$h
  ip -n %[1]snode link set dev $h up
  ip -n %[1]s$h link set eth0 up
done
ip -n %[1]snode addr add 192.0.2.1/24 dev client
ip -n %[1]snode addr add 198.51.100.1/24 dev a
ip -n %[1]snode addr add 203.0.113.1/24 dev b
ip -n %[1]sclient addr add 192.0.2.2/24 dev eth0
ip -n %[1]sa addr add 198.51.100.2/24 dev eth0
ip -n %[1]sb addr add 203.0.113.2/24 dev eth0
ip -n %[1]sclient route add default via 192.0.2.1
ip -n %[1]sa route add default via 198.51.100.1
ip -n %[1]sb route add default via 203.0.113.1
ip -n %[1]sa route add local %[2]s dev lo
ip -n %[1]sb route add local %[3]s dev lo
ip -n %[1]snode route add %[2]s via 198.51.100.2
ip -n %[1]snode route add %[3]s via 203.0.113.2
ip netns exec %[1]snode sysctl -qw net.ipv4.ip_forward=1
`

const prefix = "skiffbench-"

func newWorld() (*world, error) {
	w := &world{handles: map[string]netns.NsHandle{}}
	for _, name := range []string{"node", "client", "a", "b"} {
		_ = exec.Command("ip", "netns", "del", prefix+name).Run() // of a run that was killed
		if output, err := exec.Command("ip", "netns", "add", prefix+name).CombinedOutput(); err != nil {
			w.close()
			return nil, fmt.Errorf("add network namespace: %w: %s", err, output)
		}
		w.names = append(w.names, prefix+name)
		handle, err := netns.GetFromName(prefix + name)
		if err != nil {
			w.close()
			return nil, fmt.Errorf("open network namespace: %w", err)
		}
		w.handles[name] = handle
		if output, err := exec.Command("ip", "-n", prefix+name, "link", "set", "lo", "up").CombinedOutput(); err != nil {
			w.close()
			return nil, fmt.Errorf("switch loopback on: %w: %s", err, output)
		}
	}
	script := fmt.Sprintf(setup, prefix, rangeA, rangeB)
	if output, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		w.close()
		return nil, fmt.Errorf("connect the hosts: %w: %s", err, output)
	}
	for _, name := range []string{"a", "b"} {
		if err := w.serve(name); err != nil {
			w.close()
			return nil, err
		}
	}
	return w, nil
}

func (w *world) close() {
	for _, l := range w.listener {
		l.Close()
	}
	for _, handle := range w.handles {
		handle.Close()
	}
	for _, name := range w.names {
		_ = exec.Command("ip", "netns", "del", name).Run()
	}
}

// in runs f in a host, on a thread that ends with it.
func (w *world) in(host string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(w.handles[host])
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func (w *world) listen(host, address string) (net.Listener, error) {
	var l net.Listener
	err := w.in(host, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	if err == nil {
		w.listener = append(w.listener, l)
	}
	return l, err
}

// serve plays all pods of a host: each says the host's name and closes.
func (w *world) serve(host string) error {
	l, err := w.listen(host, fmt.Sprintf("0.0.0.0:%d", podPort))
	if err != nil {
		return fmt.Errorf("play pods: %w", err)
	}
	go func() { // until the listener is closed
		for {
			connection, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				_, _ = connection.Write([]byte(host))
				// The client closes first, with a reset that leaves nothing behind.
				_, _ = connection.Read(make([]byte, 1))
			}()
		}
	}()
	return nil
}

func (w *world) node(command ...string) (string, error) {
	output, err := exec.Command("nsenter", append([]string{"--net=/run/netns/" + prefix + "node"}, command...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, output)
	}
	return string(output), nil
}
