package machines

import (
	"bufio"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/skiff-run/skiff/test/machines/wire"
)

// Config of a virtual machine.
type Config struct {
	// Kernel is the kernel's file, Initrd a RAM disk, Append more of the kernel's
	// command line.
	Kernel, Initrd, Append string
	// Disks are image files, qcow2 by their name or raw, in the order vda, vdb.
	Disks []string
	// Networks are names of networks that machines with the same name share; only
	// on this machine's loopback, and without a way to anywhere else.
	Networks []Network
	// CPUs and Memory, in MiB, of the machine.
	CPUs, Memory int
	// Folder is where the machine's sockets and console output lie. The caller
	// removes it.
	Folder string
	// BootLimit is how long until the guest answers.
	BootLimit time.Duration
}

// Network is a machine's card in a network.
type Network struct {
	// Port is a UDP port of the multicast group that carries the network.
	Port int
	// MAC address of the card.
	MAC string
}

// Machine is a running virtual machine. One call at a time.
type Machine struct {
	config   Config
	process  *exec.Cmd
	ended    chan struct{}
	endedBy  error
	port     net.Conn
	mutex    sync.Mutex // guards requests and events
	requests *gob.Encoder
	events   *gob.Decoder
}

// Start boots a machine and returns when its guest answers. It ends with ctx,
// or by Stop.
func Start(ctx context.Context, config Config) (*Machine, error) {
	m := &Machine{config: config, ended: make(chan struct{})}
	socket := filepath.Join(config.Folder, "guest.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("start machine: %w", err)
	}
	defer listener.Close()
	m.process = exec.CommandContext(ctx, "qemu-system-x86_64", m.arguments(socket)...)
	var complaints strings.Builder
	m.process.Stderr = &complaints
	if err := m.process.Start(); err != nil {
		return nil, fmt.Errorf("start machine: %w: hack/deps.sh --machines installs QEMU", err)
	}
	go func() {
		if err := m.process.Wait(); err != nil {
			m.endedBy = fmt.Errorf("%w: %s", err, strings.TrimSpace(complaints.String()))
		}
		close(m.ended)
		listener.Close()
	}()
	if err := m.greet(listener); err != nil {
		err = fmt.Errorf("start machine: %w; its console says:\n%s", errors.Join(err, m.Kill()), m.Console())
		return nil, err
	}
	return m, nil
}

func (m *Machine) arguments(socket string) []string {
	c := m.config
	args := []string{
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", strconv.Itoa(c.CPUs), "-m", strconv.Itoa(c.Memory),
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-kernel", c.Kernel, "-append", strings.TrimSpace("console=ttyS0 panic=-1 quiet " + c.Append),
		"-chardev", "file,id=console,path=" + filepath.Join(c.Folder, "console"), "-serial", "chardev:console",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=guest,path=" + socket, "-device", "virtserialport,chardev=guest,name=" + wire.Port,
		"-device", "virtio-rng-pci",
	}
	if c.Initrd != "" {
		args = append(args, "-initrd", c.Initrd)
	}
	for _, disk := range c.Disks {
		format := "raw"
		if strings.HasSuffix(disk, ".qcow2") {
			format = "qcow2"
		}
		// What a test machine wrote need not survive this one.
		args = append(args, "-drive", "if=virtio,cache=unsafe,format="+format+",file="+disk)
	}
	for i, n := range c.Networks {
		id := "net" + strconv.Itoa(i)
		args = append(args, "-netdev", fmt.Sprintf("socket,id=%s,mcast=230.0.0.1:%d,localaddr=127.0.0.1", id, n.Port), "-device", "virtio-net-pci,netdev="+id+",mac="+n.MAC)
	}
	return args
}

// greet waits until the guest says that it is ready.
func (m *Machine) greet(listener net.Listener) error {
	deadline := time.Now().Add(m.config.BootLimit)
	if unix, is := listener.(*net.UnixListener); is {
		if err := unix.SetDeadline(deadline); err != nil {
			return err
		}
	}
	port, err := listener.Accept()
	if err != nil {
		return fmt.Errorf("QEMU did not connect: %w", errors.Join(err, m.endedBy))
	}
	m.port = port
	m.requests, m.events = gob.NewEncoder(port), gob.NewDecoder(bufio.NewReaderSize(port, 1<<20))
	if err := port.SetReadDeadline(deadline); err != nil {
		return err
	}
	var hello wire.Event
	if err := m.events.Decode(&hello); err != nil || !hello.Ready {
		return fmt.Errorf("the guest did not answer within %s: %w", m.config.BootLimit, err)
	}
	return port.SetReadDeadline(time.Time{})
}

// Command is a program to run in a machine.
type Command struct {
	Args, Env []string
	Dir       string
	Stdin     []byte
	// Stdout and Stderr get the output as it comes; nil drops it.
	Stdout, Stderr io.Writer
}

// Run runs a program in the machine and returns its exit code, -1 if a signal
// ended it. When ctx ends before the program the machine is of no use any more.
func (m *Machine) Run(ctx context.Context, c Command) (int, error) {
	done, err := m.ask(ctx, wire.Request{Run: &wire.Run{Args: c.Args, Env: c.Env, Dir: c.Dir, Stdin: c.Stdin}}, c.Stdout, c.Stderr)
	if err != nil {
		return 0, fmt.Errorf("run %s in the machine: %w", strings.Join(c.Args, " "), err)
	}
	return done.ExitCode, nil
}

// Output runs a shell command in the machine and returns what it printed. The
// error of one that fails holds that too.
func (m *Machine) Output(ctx context.Context, shell string) (string, error) {
	var output strings.Builder
	code, err := m.Run(ctx, Command{Args: []string{"sh", "-c", shell}, Stdout: &output, Stderr: &output})
	if err == nil && code != 0 {
		err = fmt.Errorf("%s: exit code %d: %s", shell, code, output.String())
	}
	return output.String(), err
}

// piece is how much of a file is sent at once.
const piece = 1 << 20

// Copy copies a file of this machine into the virtual one.
func (m *Machine) Copy(ctx context.Context, from, to string) error {
	file, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy into the machine: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("copy into the machine: %w", err)
	}
	buffer := make([]byte, piece)
	for offset := int64(0); ; {
		n, err := io.ReadFull(file, buffer)
		if n > 0 || offset == 0 {
			if _, err := m.ask(ctx, wire.Request{Write: &wire.Write{Path: to, Mode: info.Mode(), Offset: offset, Data: buffer[:n]}}, nil, nil); err != nil {
				return fmt.Errorf("copy %s into the machine: %w", from, err)
			}
		}
		offset += int64(n)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return fmt.Errorf("copy %s into the machine: %w", from, err)
		}
	}
}

// ask sends a request and hands on what comes until the answer.
func (m *Machine) ask(ctx context.Context, r wire.Request, stdout, stderr io.Writer) (wire.Event, error) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	stop := context.AfterFunc(ctx, func() { m.port.Close() })
	defer stop()
	if err := m.requests.Encode(r); err != nil {
		return wire.Event{}, m.explain(ctx, err)
	}
	for {
		var e wire.Event
		if err := m.events.Decode(&e); err != nil {
			return e, m.explain(ctx, err)
		}
		for _, part := range []struct {
			data []byte
			to   io.Writer
		}{{e.Stdout, stdout}, {e.Stderr, stderr}} {
			if len(part.data) > 0 && part.to != nil {
				if _, err := part.to.Write(part.data); err != nil {
					return e, err
				}
			}
		}
		if e.Error != "" {
			return e, errors.New(e.Error)
		}
		if e.Done {
			return e, nil
		}
	}
}

// explain adds why the connection to the guest broke.
func (m *Machine) explain(ctx context.Context, err error) error {
	select {
	case <-m.ended:
		return fmt.Errorf("the machine has stopped: %w; its console says:\n%s", errors.Join(err, m.endedBy), m.Console())
	default:
		return errors.Join(err, context.Cause(ctx))
	}
}

// Console returns the end of what the machine printed on its console.
func (m *Machine) Console() string {
	content, err := os.ReadFile(filepath.Join(m.config.Folder, "console"))
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-10_000):])
}

// Stop switches the machine off, as its system does it, and waits.
func (m *Machine) Stop(ctx context.Context) error {
	m.mutex.Lock()
	err := m.requests.Encode(wire.Request{PowerOff: true})
	m.mutex.Unlock()
	if err != nil {
		return errors.Join(fmt.Errorf("stop machine: %w", err), m.Kill())
	}
	select {
	case <-m.ended:
		m.port.Close()
		return m.endedBy
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("stop machine: %w", ctx.Err()), m.Kill())
	}
}

// Kill pulls the plug and waits.
func (m *Machine) Kill() error {
	if err := m.process.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill machine: %w", err)
	}
	<-m.ended
	if m.port != nil {
		m.port.Close()
	}
	return nil
}
