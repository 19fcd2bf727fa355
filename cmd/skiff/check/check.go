package check

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/skiff-run/skiff/internal/version"
)

// limit bounds the whole look around; what has not answered by then counts as
// not answering.
const limit = 4500 * time.Millisecond

// area is one part of the machine.
type area struct {
	name  string
	check func(context.Context, *examination)
}

// areas in the order they are reported.
var areas = []area{
	{"kernel", checkKernel},
	{"settings", checkSettings},
	{"cgroups", checkCgroups},
	{"resources", checkResources},
	{"security", checkSecurity},
	{"containerd", checkContainerd},
	{"disk", checkDisk},
	{"name", checkName},
	{"address", checkAddress},
	{"ports", checkPorts},
	{"firewall", checkFirewall},
	{"dns", checkDNS},
	{"time", checkTime},
	{"peers", checkPeers},
	{"certificates", checkCertificates},
	{"daemons", checkDaemons},
	{"leftovers", checkLeftovers},
}

// examination is one area being looked at: the machine, and what was found. It
// belongs to one goroutine.
type examination struct {
	*host
	*machine
	area     string
	findings []Finding
	skipped  []string
}

func (e *examination) add(check string, status Status, found string, remedy []string) {
	e.findings = append(e.findings, Finding{Area: e.area, Check: check, Status: status, Found: found, Remedy: remedy})
}

func (e *examination) ok(check, format string, args ...any) {
	e.add(check, OK, fmt.Sprintf(format, args...), nil)
}

func (e *examination) warn(check, found string, remedy ...string) { e.add(check, Warn, found, remedy) }

func (e *examination) fail(check, found string, remedy ...string) { e.add(check, Fail, found, remedy) }

// rootOnly says whether root looks; for others it notes what stays unseen.
func (e *examination) rootOnly(what string) bool {
	if !e.privileged {
		e.skipped = append(e.skipped, what)
	}
	return e.privileged
}

// Run looks at this machine. It changes nothing, and returns within five
// seconds. An error means that the options cannot be used.
func Run(ctx context.Context, o Options) (*Report, error) {
	h := realHost()
	m, err := o.machine(h)
	if err != nil {
		return nil, err
	}
	return run(ctx, h, m, areas), nil
}

func run(ctx context.Context, h *host, m *machine, areas []area) *Report {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// Several areas want to know the cluster; it is asked once.
	ask := h.cluster
	once := sync.OnceValues(func() (*cluster, error) { return ask(ctx, m) })
	shared := *h
	shared.cluster = func(context.Context, *machine) (*cluster, error) { return once() }
	h = &shared
	each := make([]*examination, len(areas))
	var looking sync.WaitGroup
	for i, a := range areas {
		each[i] = &examination{host: h, machine: m, area: a.name}
		looking.Go(func() { a.check(ctx, each[i]) })
	}
	looking.Wait()
	report := &Report{Version: version.Version, Host: m.hostName, Role: string(m.role), Installed: m.installed, Findings: []Finding{}}
	for _, e := range each {
		report.Findings = append(report.Findings, e.findings...)
		report.Skipped = append(report.Skipped, e.skipped...)
	}
	report.count()
	return report
}
