package up

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/skiff-run/skiff/internal/operator"
)

// goneAfter is how long a daemon may be missing before a start is given up: it
// ended, and what it had to say is at the end of its log.
const goneAfter = 1500 * time.Millisecond

// Check finds what this machine lacks to have the role, before anything is changed.
func (o *Options) Check(role operator.Role) error { return o.check(role) }

// Running says whether daemons of this machine run.
func (o *Options) Running() bool {
	if running(o.PIDFile("up"), "skiff") != 0 {
		return true
	}
	return o.systemd() && systemctl("is-active", "--quiet", unit("agent")) == nil
}

// Prepare makes the plan's folders and files and, on a control machine, its
// certificates and kubeconfigs. Start does it too.
func (o *Options) Prepare(p *Plan) error { return o.prepare(p.effective) }

// Start prepares the plan's files, starts the daemons in the background, and
// returns when the node is Ready. When they do not come up they are left as
// they are: the caller decides what a failure means. Daemons that run already
// are only waited for.
func (o *Options) Start(ctx context.Context, p *Plan, out io.Writer) error {
	begin := time.Now()
	watch := &progress{out: out, begin: begin, options: o, configurations: p.effective}
	if !o.Running() {
		watch.since = begin
		if err := o.stopLeftovers(ctx); err != nil {
			return err
		}
		if err := o.prepare(p.effective); err != nil {
			return err
		}
		watch.begun()
		if err := o.launch(ctx, p, out); err != nil {
			return err
		}
	} else {
		if err := o.handOver(); err != nil {
			return err
		}
		watch.begun()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("not within %s; see the logs: %s", startLimit, o.logHint()))
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		if err := o.watch(ctx, p); err != nil {
			fail(err)
		}
	}()
	err := watch.untilReady(ctx)
	fail(nil)
	<-watching
	return unfit(err)
}

// launch starts the daemons by systemd where its units are installed, else by
// a process of ours that supervises them.
func (o *Options) launch(ctx context.Context, p *Plan, out io.Writer) error {
	if o.systemd() {
		return o.systemdStart(p)
	}
	arguments := []string{"up", "--supervise", "--hand-over", "--root", o.Root, "--containerd", o.ContainerdBinary}
	for flag, value := range map[string]string{"--binaries": o.Binaries, "--containerd-address": o.ContainerdAddress} {
		if value != "" {
			arguments = append(arguments, flag, value)
		}
	}
	return detach(ctx, out, arguments)
}

// watch returns an error when a daemon is missing for longer than a restart takes.
func (o *Options) watch(ctx context.Context, p *Plan) error {
	names := daemonsOf(p.effective.role)
	if _, err := os.Stat(o.PIDFile(containerd)); err == nil && !o.systemd() {
		names = append([]string{containerd}, names...)
	}
	missing := map[string]time.Time{}
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			for _, name := range names {
				if o.alive(name) {
					delete(missing, name)
					continue
				}
				if _, known := missing[name]; !known {
					missing[name] = now
				}
				if now.Sub(missing[name]) > goneAfter {
					return fmt.Errorf("%s ends instead of running; the end of its log:\n%s", o.program(name), o.logTail(name))
				}
			}
		}
	}
}

func (o *Options) alive(name string) bool {
	if o.systemd() {
		return systemctl("is-failed", "--quiet", unit(name)) != nil
	}
	return running(o.PIDFile(name), o.program(name)) != 0
}

// containerd is what our own containerd is called beside the daemons.
const containerd = "containerd"

// program is the name of the executable of a daemon, or of our containerd.
func (o *Options) program(name string) string {
	if name == containerd {
		return filepath.Base(o.ContainerdBinary)
	}
	return "skiff-" + name
}

func (o *Options) logTail(name string) string {
	if !o.systemd() {
		return tail(o.Log(name), 12)
	}
	output, err := exec.Command("journalctl", "--unit", unit(name), "--lines", "12", "--no-pager", "--output", "cat").CombinedOutput()
	if err != nil {
		return "journalctl --unit " + unit(name)
	}
	return strings.TrimRight(string(output), "\n")
}

func (o *Options) logHint() string {
	if o.systemd() {
		return "journalctl --unit 'skiff-*'"
	}
	return o.Logs()
}

// systemd says whether this machine's daemons are systemd's: it runs, our
// units are installed, and the cluster is the machine's own.
func (o *Options) systemd() bool {
	if o.Root != "/" {
		return false
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return false
	}
	return systemctl("cat", unit("agent")) == nil
}

func (o *Options) systemdStart(p *Plan) error {
	arguments := []string{"enable", "--now", "--no-block"}
	for _, name := range daemonsOf(p.effective.role) {
		arguments = append(arguments, unit(name))
	}
	if err := systemctl("daemon-reload"); err != nil {
		return err
	}
	return systemctl(arguments...)
}

// systemdStop stops the units and, forgetting them, keeps them from coming
// back at the next boot.
func (o *Options) systemdStop(forget bool) error {
	arguments := []string{"stop"}
	if forget {
		arguments = []string{"disable", "--now"}
	}
	for i := len(daemons) - 1; i >= 0; i-- {
		// A worker has no skiff-control.
		if systemctl("cat", unit(daemons[i])) == nil {
			arguments = append(arguments, unit(daemons[i]))
		}
	}
	return systemctl(arguments...)
}

func unit(daemon string) string { return "skiff-" + daemon + ".service" }

func systemctl(arguments ...string) error {
	output, err := exec.Command("systemctl", arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w\n%s", strings.Join(arguments, " "), err, output)
	}
	return nil
}
