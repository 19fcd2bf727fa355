package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/operator"
)

// goneAfter is how long a daemon may be missing before a start is given up: it
// ended, and what it had to say is at the end of its log.
const goneAfter = 1500 * time.Millisecond

// Plan is what Start will run: the configurations of this machine's daemons,
// for whoever prepares it to read and to complete.
type Plan struct {
	Control *config.Control
	Agent   *config.Agent
	Proxy   *config.Proxy
	c       configurations
}

// Check finds what this machine lacks before anything is changed.
func (o *Options) Check() error { return o.check() }

// Plan merges defaults, files and options for a machine of the role.
func (o *Options) Plan(role operator.Role) (*Plan, error) {
	c, err := o.configure()
	if err != nil {
		return nil, err
	}
	c.role = role
	return &Plan{Control: c.control, Agent: c.agent, Proxy: c.proxy, c: c}, nil
}

// Running says whether daemons of this machine run.
func (o *Options) Running() bool {
	if running(o.PIDFile("up"), "skiff") != 0 {
		return true
	}
	return o.systemd() && systemctl("is-active", "--quiet", unit("agent")) == nil
}

// CheckPorts finds ports of the plan that another program has. It is asked
// while no daemon of this machine runs.
func (p *Plan) CheckPorts() error {
	type use struct {
		flag string
		port int
	}
	uses := []use{{"--agent-port", p.Agent.Port}, {"--proxy-health-port", p.Proxy.HealthPort}, {"--proxy-metrics-port", p.Proxy.MetricsPort}}
	if p.c.role == operator.Control {
		uses = append(uses, use{"--port", p.Control.Port}, use{"--peer-port", p.Control.PeerPort})
	}
	var errs []error
	for _, each := range uses {
		if each.port == 0 {
			continue
		}
		listener, err := net.Listen("tcp", ":"+strconv.Itoa(each.port))
		if err != nil {
			errs = append(errs, fmt.Errorf("port %d (%s) is taken: stop the program that has it (ss -ltnp), or choose another port: %w", each.port, each.flag, err))
			continue
		}
		listener.Close()
	}
	return errors.Join(errs...)
}

// Save writes the plan into /etc/skiff, where people and systemd's units find
// it and every later start takes it from. An address that every start would find
// again is left out, so that a machine may get another one.
func (o *Options) Save(p *Plan) error {
	c := p.c
	if again, err := defaultAddress(); err == nil && o.AddressFound && again == c.agent.NodeIP {
		control, agent := *c.control, *c.agent
		control.AdvertiseAddress, agent.NodeIP = "", ""
		c.control, c.agent = &control, &agent
	}
	for _, name := range daemonsOf(c.role) {
		configuration := c.of(name)
		if errs := configuration.Validate(); len(errs) > 0 {
			return fmt.Errorf("configuration of %s: %w", name, errs.ToAggregate())
		}
		if err := config.Write(o.UserConfig(name), configuration); err != nil {
			return err
		}
	}
	return nil
}

// Prepare makes the plan's folders and files and, on a control machine, its
// certificates and kubeconfigs. Start does it too.
func (o *Options) Prepare(p *Plan) error { return o.prepare(p.c) }

// Start prepares the plan's files, starts the daemons in the background, and
// returns when the node is Ready. When they do not come up they are left as
// they are: the caller decides what a failure means. Daemons that run already
// are only waited for.
func (o *Options) Start(ctx context.Context, p *Plan, out io.Writer) error {
	begin := time.Now()
	watch := &progress{out: out, begin: begin, options: o, configurations: p.c}
	if !o.Running() {
		watch.since = begin
		if err := o.stopLeftovers(ctx); err != nil {
			return err
		}
		if err := o.prepare(p.c); err != nil {
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
	return err
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
	names := daemonsOf(p.c.role)
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
	for _, name := range daemonsOf(p.c.role) {
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
		arguments = append(arguments, unit(daemons[i]))
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
