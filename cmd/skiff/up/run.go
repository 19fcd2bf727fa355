package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/internal/daemon"
	"github.com/skiff-run/skiff/internal/tracking"
)

// startLimit bounds how long a cluster may take to become Ready before up
// gives up and says what it waited for. Generous: slow disks exist.
const startLimit = 3 * time.Minute

// readyDescriptor is the file descriptor by which the detached process tells
// the one that started it that the node is Ready: the first after the standard
// three, where os/exec puts ExtraFiles.
const readyDescriptor = 3

// Run runs the cluster until ctx ends, or starts it and leaves it behind when
// the options say so.
func Run(ctx context.Context, o *Options, out io.Writer) error {
	role, err := o.role()
	if err != nil {
		return err
	}
	if err := o.check(role); err != nil {
		return err
	}
	if pid := running(o.PIDFile("up"), "skiff"); pid != 0 {
		return fmt.Errorf("a cluster is already running here (process %d): stop it with \"skiff down\" first", pid)
	}
	if m, err := o.Machine(); err != nil {
		return err
	} else if m != nil && m.Joining && !o.HandOver {
		return errors.New("a join of this machine has not finished: run \"skiff join\" again with a valid token, or \"skiff reset --yes\" to give it up")
	}
	if o.Detach && !o.Supervise {
		return detach(ctx, out, append(os.Args[1:], "--supervise"))
	}
	return o.supervise(ctx, out)
}

// detach starts this program once more with the arguments, in a session of its
// own, and returns when that one lets go: when the node is Ready or, with
// --hand-over, when the daemons are started.
func detach(ctx context.Context, out io.Writer, arguments []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	ready, readyWriter, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer ready.Close()
	command := exec.Command(self, arguments...)
	command.Stdout, command.Stderr = out, os.Stderr
	command.ExtraFiles = []*os.File{readyWriter}
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start the detached process: %w", err)
	}
	readyWriter.Close()
	stop := context.AfterFunc(ctx, func() { _ = command.Process.Signal(syscall.SIGTERM) })
	defer stop()
	message, err := io.ReadAll(ready)
	if err != nil {
		return fmt.Errorf("wait for the detached process: %w", err)
	}
	if len(message) > 0 {
		return command.Process.Release()
	}
	if err := command.Wait(); err != nil {
		return errors.New("the cluster did not start, see above")
	}
	return nil
}

// supervise is the life of the process that owns the daemons.
func (o *Options) supervise(ctx context.Context, out io.Writer) (err error) {
	begin := time.Now()
	var hangups <-chan os.Signal // a terminal's end still ends a process in its foreground
	if o.Supervise {
		hangups = daemon.Hangups()
		// The daemons must not hold the pipe open: its end says that all is said.
		unix.CloseOnExec(readyDescriptor)
	}
	c, err := o.configure()
	if err != nil {
		return err
	}
	if err := o.stopLeftovers(ctx); err != nil {
		return err
	}
	if err := o.prepare(c); err != nil {
		return err
	}
	// Before anything connects; the daemons' cleanup turns it off.
	if err := tracking.On(ctx); err != nil {
		return err
	}
	if err := os.WriteFile(o.PIDFile("up"), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return fmt.Errorf("record process id: %w", err)
	}
	// The children outlive ctx: they are stopped in order below.
	children, stopSupervising := context.WithCancel(context.WithoutCancel(ctx))
	s := &supervisor{out: out}
	defer func() {
		stopSupervising()
		fmt.Fprintln(out, "stopping")
		err = errors.Join(err, o.takeDown(context.WithoutCancel(ctx), out))
		s.group.Wait()
		err = errors.Join(err, os.Remove(o.PIDFile("up")))
	}()

	p := &progress{out: out, begin: begin, since: begin, options: o, configurations: c}
	settled, failed := make(chan struct{}), make(chan error, len(daemons)+1)
	starting, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("not within %s; see the logs in %s", startLimit, o.Logs()))
	defer cancel()
	starting, fail := context.WithCancelCause(starting)
	defer fail(nil)
	s.group.Go(func() {
		select {
		case err := <-failed:
			fail(err)
		case <-settled:
		case <-children.Done():
		}
	})
	if o.HandOver {
		// Whoever started us watches from here on, and decides what a failure means.
		close(settled)
	} else {
		p.begun()
	}
	if err := o.startAll(children, s, c, settled, failed); err != nil {
		return err
	}
	if !o.HandOver {
		if err := p.untilReady(starting); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return unfit(err)
		}
		p.next()
		close(settled)
	}
	if o.Supervise {
		if err := letGo(o.Log("up")); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
			if err := o.reload(); err != nil {
				fmt.Fprintf(out, "%s not reloaded, everything is as it was: %v\n", time.Now().Format(time.RFC3339), err)
			}
		}
	}
}

// reload writes the daemons' files anew and has them read these.
func (o *Options) reload() error {
	c, err := o.configure()
	if err != nil {
		return err
	}
	if err := o.writeConfigurations(c); err != nil {
		return err
	}
	var errs []error
	for _, name := range daemonsOf(c.role) {
		pid := running(o.PIDFile(name), "skiff-"+name)
		if pid == 0 {
			continue // it reads them when it is started
		}
		if err := unix.Kill(pid, unix.SIGHUP); err != nil {
			errs = append(errs, fmt.Errorf("have %s read its configuration: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// startAll starts containerd if needed and the daemons, all at once: each
// waits for the others by itself.
func (o *Options) startAll(ctx context.Context, s *supervisor, c configurations, settled <-chan struct{}, failed chan<- error) error {
	programs, err := o.daemonPrograms(c.role)
	if err != nil {
		return err
	}
	own, needed, err := o.containerd()
	if err != nil {
		return err
	}
	if needed {
		programs = append([]program{own}, programs...)
	}
	for _, each := range programs {
		if err := s.run(ctx, each, settled, failed); err != nil {
			return err
		}
	}
	return nil
}

// letGo tells the waiting process that the node is Ready and hands its
// terminal back: from here on what this process says goes to its log.
func letGo(path string) error {
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	for descriptor := 1; descriptor <= 2; descriptor++ {
		if err := unix.Dup2(int(log.Fd()), descriptor); err != nil {
			return fmt.Errorf("redirect output to %s: %w", path, err)
		}
	}
	ready := os.NewFile(readyDescriptor, "ready")
	_, err = ready.WriteString("ready")
	return errors.Join(err, ready.Close())
}
