package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// peer is a program to measure.
type peer struct {
	name, program string
	arguments     func(mode, kubeconfig string) []string
}

func skiffArguments(mode, kubeconfig string) []string {
	return []string{"--mode", mode, "--kubeconfig", kubeconfig, "--node-name", "here", "--dns-enabled=false", "--log-level", "warn"}
}

func kubeArguments(mode, kubeconfig string) []string {
	return []string{
		"--proxy-mode", mode, "--kubeconfig", kubeconfig, "--hostname-override", "here", "--cluster-cidr", "10.244.0.0/16",
		// Settings of the whole kernel, which a namespace cannot change.
		"--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
	}
}

// daemon is a running peer.
type daemon struct {
	command *exec.Cmd
	log     bytes.Buffer
	ended   chan error
}

// start runs a peer on the node; its process id is that of the program, because
// nsenter becomes it.
func (p peer) start(ctx context.Context, mode, kubeconfig string) (*daemon, error) {
	arguments := append([]string{"--net=/run/netns/" + prefix + "node", p.program}, p.arguments(mode, kubeconfig)...)
	d := &daemon{command: exec.CommandContext(ctx, "nsenter", arguments...), ended: make(chan error, 1)}
	d.command.Stdout, d.command.Stderr = &d.log, &d.log
	if err := d.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.program, err)
	}
	go func() { d.ended <- d.command.Wait() }()
	return d, nil
}

// stop ends the daemon and waits for it.
func (d *daemon) stop() {
	_ = d.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.ended:
	case <-time.After(10 * time.Second):
		_ = d.command.Process.Kill()
		<-d.ended
	}
}

// alive returns an error with the log if the daemon has ended.
func (d *daemon) alive() error {
	select {
	case err := <-d.ended:
		d.ended <- err
		return fmt.Errorf("it ended: %w\n%s", err, d.log.String())
	default:
		return nil
	}
}

// processor is the time it and the programs it ran have used.
func (d *daemon) processor() (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.command.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read its processor time: %w", err)
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+2:]))
	ticks := 0
	for _, field := range fields[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, fmt.Errorf("read its processor time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// memory is its anonymous memory in megabytes.
func (d *daemon) memory() (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.command.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read its memory: %w", err)
	}
	for _, line := range strings.Split(string(data), "\n") {
		if rest, found := strings.CutPrefix(line, "RssAnon:"); found {
			kilobytes, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return float64(kilobytes) / 1024, err
		}
	}
	return 0, fmt.Errorf("read its memory: no RssAnon")
}
