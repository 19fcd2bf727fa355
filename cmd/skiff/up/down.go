package up

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/internal/config"
)

// downLimit is how long the process that owns the daemons may take to stop
// everything: pods get a grace period.
const downLimit = 2 * time.Minute

// Down stops the cluster below the layout's root. When nothing runs it still
// removes what a crash left behind.
func Down(ctx context.Context, l Layout, out io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("needs root: run it with sudo")
	}
	if pid := running(l.PIDFile("up"), "skiff"); pid != 0 {
		return endSupervisor(ctx, pid, out)
	}
	o := &Options{Layout: l}
	if o.systemd() {
		if err := o.systemdStop(false); err != nil {
			return err
		}
		if _, err := os.Stat(l.UserConfig("agent")); err == nil {
			return errors.Join(o.cleanUp(ctx, "agent", l.UserConfig("agent"), out), o.cleanUp(ctx, "proxy", l.UserConfig("proxy"), out))
		}
	}
	if _, err := os.Stat(l.Config("agent")); errors.Is(err, os.ErrNotExist) {
		fmt.Fprintln(out, "nothing is running")
		return nil
	}
	err := o.takeDown(ctx, out)
	_ = os.Remove(l.PIDFile("up"))
	return err
}

func endSupervisor(ctx context.Context, pid int, out io.Writer) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("find process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		return fmt.Errorf("stop process %d: %w", pid, err)
	}
	if !ended(ctx, fd, downLimit) {
		return fmt.Errorf("process %d has not stopped everything within %s: see its log, or kill it and run \"skiff down\" again", pid, downLimit)
	}
	fmt.Fprintln(out, "stopped; the data stays")
	return nil
}

// stopLeftovers stops daemons that outlived a supervisor that was killed. The
// pods they run stay.
func (o *Options) stopLeftovers(ctx context.Context) error {
	var errs []error
	for i := len(daemons) - 1; i >= 0; i-- {
		errs = append(errs, terminate(ctx, o.PIDFile(daemons[i]), "skiff-"+daemons[i], 15*time.Second))
	}
	return errors.Join(errs...)
}

// takeDown stops the daemons, then has each remove what it made in the
// kernel, then stops a containerd of ours. It goes on after errors, so that as
// little as possible is left, and returns them all.
func (o *Options) takeDown(ctx context.Context, out io.Writer) error {
	errs := []error{o.stopLeftovers(ctx)}
	if _, err := os.Stat(o.Config("agent")); err == nil {
		errs = append(errs, o.cleanUp(ctx, "agent", o.Config("agent"), out), o.cleanUp(ctx, "proxy", o.Config("proxy"), out))
	}
	errs = append(errs, terminate(ctx, o.PIDFile("containerd"), "containerd", 10*time.Second))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, name := range daemons {
		if err := os.Remove(o.Config(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// cleanUp runs a daemon's own cleanup command.
func (o *Options) cleanUp(ctx context.Context, name, configuration string, out io.Writer) error {
	binary, err := o.binary(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, downLimit)
	defer cancel()
	var output bytes.Buffer
	command := exec.CommandContext(ctx, binary, "cleanup", "--config", configuration)
	command.Stdout, command.Stderr = &output, &output
	command.Env = config.WithoutEnvironment(os.Environ())
	if err := command.Run(); err != nil {
		return fmt.Errorf("clean up after %s: %w\n%s", name, err, output.String())
	}
	fmt.Fprintf(out, "  %s's pods, links and rules are gone\n", name)
	return nil
}

// Reset stops the cluster and removes its files. A containerd that is not
// ours keeps its images.
func Reset(ctx context.Context, l Layout, out io.Writer) error {
	// What to remove is read before Down removes the configuration.
	agent := l.agent()
	if err := Down(ctx, l, out); err != nil {
		return err
	}
	o := &Options{Layout: l}
	if o.systemd() {
		if err := o.systemdStop(true); err != nil {
			return err
		}
	}
	folders := []string{
		l.Data(), l.PKI(), l.Run(), l.Logs(), agent.RootDir, agent.PodLogsDir, agent.ContainerLogsDir,
		l.AdminKubeconfig(), l.Kubeconfig("agent"), l.Kubeconfig("proxy"), l.serversFile(),
	}
	// What init or join wrote goes; what people wrote for "skiff up" stays.
	if machine, err := l.Machine(); machine != nil || err != nil {
		for _, name := range daemons {
			folders = append(folders, l.UserConfig(name))
		}
	}
	if l.Root != "/" {
		folders = append(folders, l.path("var/lib/containerd"), l.path("run/containerd"))
	}
	var errs []error
	// The record of what this machine is goes last, so that a reset that was cut
	// short is taken up where it ended.
	for _, folder := range append(folders, l.machineFile()) {
		errs = append(errs, os.RemoveAll(folder))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove data: %w", err)
	}
	// What people put there stays: these go only when they are empty.
	for _, folder := range []string{l.path("etc/skiff/pods"), l.path("etc/skiff")} {
		_ = os.Remove(folder)
	}
	fmt.Fprintln(out, "removed the cluster's data, certificates and logs")
	for _, name := range daemons {
		if kept, err := config.DropIns(l.UserConfig(name)); err == nil && len(kept) > 0 {
			fmt.Fprintf(out, "kept what people wrote: %s\n", strings.Join(kept, ", "))
		}
	}
	return nil
}

// agent is what the agent runs with or, where it does not run, would.
func (l Layout) agent() *config.Agent {
	agent := config.DefaultAgent()
	if err := config.Load(l.Config("agent"), config.AgentKind, agent); err == nil {
		return agent
	}
	o := &Options{Layout: l}
	agent = o.defaults().agent
	path := l.UserConfig("agent")
	if err := config.Load(path, config.AgentKind, agent); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return o.defaults().agent // its files cannot be read: the usual places
	}
	if err := mergeOver(path, config.AgentKind, agent); err != nil {
		return o.defaults().agent
	}
	return agent
}
