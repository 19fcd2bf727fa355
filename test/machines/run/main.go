// Command run runs the tests of packages in a small virtual machine: on another
// kernel, as root, with everything loaded. A test that is skipped there has
// missed what it is for, and counts as failed.
//
//	go run ./test/machines/run [flags] PACKAGE[=PATTERN]...
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/test/machines"
)

type options struct {
	kernel, pattern, bench, shell string
	packages                      []string
	limit                         time.Duration
	cpus, memory                  int
	debian                        bool
	files                         []string
}

func main() {
	var o options
	flag.StringVar(&o.kernel, "kernel", "", "folder of a kernel that test/machines/kernel.sh unpacked; it is run when this is empty")
	flag.StringVar(&o.pattern, "run", ".", "pattern of the tests to run")
	flag.StringVar(&o.bench, "bench", "", "pattern of the benchmarks to run")
	flag.StringVar(&o.shell, "shell", "", "a shell command to run in the machine after the tests")
	flag.DurationVar(&o.limit, "timeout", 10*time.Minute, "limit for everything")
	flag.IntVar(&o.cpus, "cpus", 2, "processors of the machine")
	flag.IntVar(&o.memory, "memory", 2048, "memory of the machine, in MiB")
	flag.BoolVar(&o.debian, "debian", false, "a Debian machine with systemd, containerd and cgroup v2, not a small one")
	flag.Func("copy", "a file to copy into the machine, as FROM=TO; may be repeated", func(text string) error {
		if !strings.Contains(text, "=") {
			return fmt.Errorf("%q is not FROM=TO", text)
		}
		o.files = append(o.files, text)
		return nil
	})
	flag.Parse()
	o.packages = flag.Args()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	err := run(ctx, o)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "run tests in a machine:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	folder, err := os.MkdirTemp("", "skiff-machine-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	if o.kernel == "" {
		if o.kernel, err = machines.Kernel(ctx); err != nil {
			return err
		}
	}
	initrd, err := machines.Small(ctx, o.kernel, folder)
	if err != nil {
		return err
	}
	for i, argument := range o.packages {
		name, _, _ := strings.Cut(argument, "=")
		if err := build(ctx, name, binary(folder, i)); err != nil {
			return err
		}
	}
	config := machines.Config{
		Kernel: filepath.Join(o.kernel, "vmlinuz"), Initrd: initrd, CPUs: o.cpus, Memory: o.memory, Folder: folder, BootLimit: 2 * time.Minute,
	}
	if o.debian {
		disk, err := machines.Debian(ctx, o.kernel)
		if err != nil {
			return err
		}
		port, err := freePort()
		if err != nil {
			return err
		}
		config.Networks = []machines.Network{{Port: port, MAC: "52:54:00:00:00:02"}}
		if config, err = config.WithSystem(ctx, disk, filepath.Join(folder, "disk.qcow2")); err != nil {
			return err
		}
	}
	begin := time.Now()
	machine, err := machines.Start(ctx, config)
	if err != nil {
		return err
	}
	// Once it was told to switch itself off there is nothing left to kill.
	defer func() { err = errors.Join(err, machine.Kill()) }()
	release, err := machine.Output(ctx, "ip link set lo up && uname -r")
	if err != nil {
		return err
	}
	fmt.Printf("machine with kernel %s answers after %s\n", strings.TrimSpace(release), time.Since(begin).Round(100*time.Millisecond))
	for _, file := range o.files {
		from, to, _ := strings.Cut(file, "=")
		if err := machine.Copy(ctx, from, to); err != nil {
			return err
		}
	}
	var errs []error
	for i, argument := range o.packages {
		name, pattern, own := strings.Cut(argument, "=")
		if !own {
			pattern = o.pattern
		}
		errs = append(errs, test(ctx, machine, o, name, pattern, binary(folder, i)))
	}
	if o.shell != "" {
		code, err := machine.Run(ctx, machines.Command{Args: []string{"sh", "-c", o.shell}, Stdout: os.Stdout, Stderr: os.Stderr})
		if err == nil && code != 0 {
			err = fmt.Errorf("%s: exit code %d", o.shell, code)
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, machine.Stop(ctx))...)
}

// freePort is a UDP port that nobody uses: the machine's network is its own.
func freePort() (int, error) {
	probe, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return 0, fmt.Errorf("find a port for the machine's network: %w", err)
	}
	defer probe.Close()
	address, _ := netip.ParseAddrPort(probe.LocalAddr().String())
	return int(address.Port()), nil
}

func binary(folder string, i int) string { return filepath.Join(folder, fmt.Sprintf("test%d", i)) }

func build(ctx context.Context, name, to string) error {
	command := exec.CommandContext(ctx, "go", "test", "-c", "-ldflags", "-s -w", "-o", to, name)
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build the tests of %s: %w: %s", name, err, output)
	}
	return nil
}

var skipped = regexp.MustCompile(`(?m)^\s*--- SKIP: (\S+)`)

// test runs the tests of one package in the machine.
func test(ctx context.Context, machine *machines.Machine, o options, name, pattern, binary string) error {
	at := "/tmp/" + filepath.Base(binary)
	if err := machine.Copy(ctx, binary, at); err != nil {
		return err
	}
	args := []string{at, "-test.v", "-test.run", pattern, "-test.timeout", o.limit.String()}
	if o.bench != "" {
		args = append(args, "-test.bench", o.bench, "-test.benchtime", "3x")
	}
	var output bytes.Buffer
	begin := time.Now()
	code, err := machine.Run(ctx, machines.Command{Args: args, Dir: "/tmp", Stdout: io.MultiWriter(os.Stdout, &output), Stderr: os.Stderr})
	switch {
	case err != nil:
		return err
	case code != 0:
		return fmt.Errorf("%s: exit code %d", name, code)
	}
	if names := skipped.FindAllStringSubmatch(output.String(), -1); names != nil {
		return fmt.Errorf("%s: skipped %s, though the machine has everything", name, names[0][1])
	}
	fmt.Printf("%s passed in %s\n", name, time.Since(begin).Round(100*time.Millisecond))
	return nil
}
