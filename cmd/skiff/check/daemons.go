package check

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/skiff-run/skiff/internal/operator"
)

func checkDaemons(ctx context.Context, e *examination) {
	names := []string{"agent", "proxy"}
	if e.role == operator.Control {
		names = append([]string{"control"}, names...)
	}
	if !e.systemd() || e.Root != "/" {
		if e.installed && e.rootOnly("daemons") {
			e.supervised()
		}
		return
	}
	for _, name := range names {
		e.unit(ctx, "skiff-"+name)
	}
	if e.installed {
		e.unit(ctx, "containerd")
	}
}

// supervised reports daemons that a process of skiff keeps running.
func (e *examination) supervised() {
	for _, d := range e.Daemons() {
		if strings.HasPrefix(d.State, "runs") {
			e.ok("skiff-"+d.Name, "%s", d.State)
		} else {
			e.fail("skiff-"+d.Name, d.State, "skiff up --detach", "tail -n 20 "+e.Log(d.Name))
		}
	}
}

// troubled is how many restarts of a unit are worth a word.
const troubled = 3

func (e *examination) unit(ctx context.Context, name string) {
	output, err := e.run(ctx, "", "systemctl", "show", name, "--property=LoadState,ActiveState,SubState,UnitFileState,NRestarts,StatusText")
	if err != nil {
		e.warn(name, "systemd does not tell: "+firstLine(err.Error()))
		return
	}
	p := map[string]string{}
	for line := range strings.Lines(output) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		p[key] = value
	}
	log := "journalctl -u " + name + " -n 20"
	restarts, _ := strconv.Atoi(p["NRestarts"]) // old systemd does not count
	state := p["ActiveState"]
	if p["StatusText"] != "" && state == "active" {
		state += ", " + p["StatusText"]
	}
	switch {
	case p["LoadState"] == "not-found" && e.installed && name != "containerd":
		e.warn(name, "has no unit: it does not come back after a reboot by itself", "apt-get install "+name+"   # the package")
	case p["LoadState"] == "not-found":
		return
	case !e.installed:
		e.ok(name, "installed; %s starts it", e.command())
	case p["ActiveState"] == "failed":
		e.fail(name, "failed", log, "systemctl reset-failed "+name+" && systemctl start "+name)
	case p["SubState"] == "auto-restart" || p["ActiveState"] == "activating" && restarts > 0:
		e.fail(name, fmt.Sprintf("ends whenever it is started, %d times so far", restarts), log)
	case p["ActiveState"] != "active":
		e.fail(name, state, "systemctl start "+name, log)
	case p["UnitFileState"] == "disabled":
		e.warn(name, state+", but does not come back after a reboot", "systemctl enable "+name)
	case restarts > troubled:
		e.warn(name, fmt.Sprintf("%s, but was started again %d times", state, restarts), log)
	default:
		e.ok(name, "%s", state)
	}
}
