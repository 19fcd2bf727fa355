// Command cluster runs a whole cluster on test hosts of this machine, each
// with a network, processes and files of its own, and lets one mistreat it:
// kill daemons, pull cables, cut directions, switch hosts off. `make cluster`
// calls it; no argument prints what it can do.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/test/fleet"
	"github.com/skiff-run/skiff/test/host"
)

const (
	folder = "/srv/skiff-cluster"
	uplink = "skiff-cluster"
	// startLimit bounds each step of bringing a host up.
	startLimit = 3 * time.Minute
)

// verb is one thing this command does.
type verb struct {
	usage, help string
	arguments   int // at least so many
	run         func(ctx context.Context, f *fleet.Fleet, arguments []string) error
}

var verbs = map[string]verb{
	"exec":   {"exec HOST COMMAND...", "run a command on a host, skiff and kubectl among them", 2, execute},
	"kill":   {"kill HOST DAEMON", "kill -9 control, agent, proxy or containerd; its supervisor starts it again", 2, kill},
	"freeze": {"freeze HOST [DAEMON]", "stop everything on a host, or one daemon, as a paused virtual machine", 1, signalHost(unix.SIGSTOP)},
	"thaw":   {"thaw HOST [DAEMON]", "let it go on", 1, signalHost(unix.SIGCONT)},
	"unplug": {"unplug HOST", "pull a host's cable", 1, onHost((*host.Network).Unplug)},
	"plug":   {"plug HOST", "put it in again", 1, onHost((*host.Network).Plug)},
	"cut":    {"cut HOST HOST", "stop everything from the first to the second, one way", 2, cut},
	"lose":   {"lose HOST HOST PERCENT", "drop frames from the first to the second at random", 3, lose},
	"heal":   {"heal", "end all cuts and losses, and put all cables in", 0, func(_ context.Context, f *fleet.Fleet, _ []string) error { return f.Heal() }},
	"off":    {"off HOST", "switch a host off, as by its plug", 1, off},
	"on":     {"on HOST", "switch it on again and start what it was", 1, on},
	"move":   {"move HOST ADDRESS", "give a host another address", 2, move},
	"add":    {"add HOST control|worker", "add another host and join it", 2, add},
	"list":   {"list", "list hosts and addresses", 0, list},
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() > 0 {
			os.Exit(exit.ExitCode())
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	binaries, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	if err := os.Setenv("PATH", filepath.Join(folder, "bin")+":"+binaries+":"+os.Getenv("PATH")); err != nil {
		return err
	}
	if len(arguments) == 0 {
		return usage()
	}
	f := &fleet.Fleet{Binaries: binaries}
	switch arguments[0] {
	case "up":
		return up(ctx, f, arguments[1:])
	case "down":
		return down(ctx)
	}
	v, known := verbs[arguments[0]]
	if !known || len(arguments)-1 < v.arguments {
		return usage()
	}
	if f.Network, err = host.Open(folder); err != nil {
		return fmt.Errorf("%w: start one with make cluster", err)
	}
	return v.run(ctx, f, arguments[1:])
}

func usage() error {
	fmt.Println("hack/cluster.sh VERB:")
	fmt.Printf("  %-24s %s\n", "up [WORKERS]", "three control machines and so many workers, none unless told otherwise")
	fmt.Printf("  %-24s %s\n", "down", "take everything away")
	for _, name := range []string{"list", "exec", "kill", "freeze", "thaw", "unplug", "plug", "cut", "lose", "heal", "off", "on", "move", "add"} {
		fmt.Printf("  %-24s %s\n", verbs[name].usage, verbs[name].help)
	}
	return errors.New("say what to do")
}

func find(f *fleet.Fleet, name string) (*host.Host, error) {
	if h := f.Host(name); h != nil {
		return h, nil
	}
	var names []string
	for _, h := range f.Hosts {
		names = append(names, h.Name)
	}
	return nil, fmt.Errorf("no host %q: there are %s", name, strings.Join(names, ", "))
}
