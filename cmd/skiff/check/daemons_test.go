package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/cmd/skiff/up"
	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/internal/pki"
)

func TestContainerd(t *testing.T) {
	t.Parallel()
	answers := func(info *runtimeInfo, err error) func(*fake) {
		return func(f *fake) {
			f.host.runtime = func(context.Context, string) (*runtimeInfo, error) { return info, err }
		}
	}
	broken := func(name, complaint string) func(*fake) {
		return func(f *fake) {
			info := wellRuntime("1.7.2")
			info.plugins[name] = complaint
			if complaint == "" {
				delete(info.plugins, name)
			}
			answers(info, nil)(f)
		}
	}
	silent := answers(nil, errors.New("connect: no such file or directory"))
	without := func(program string) func(*fake) { return func(f *fake) { delete(f.programs, program) } }
	both := func(a, b func(*fake)) func(*fake) { return func(f *fake) { a(f); b(f) } }
	systemd := func(f *fake) { f.write("run/systemd/system/x", ""); f.machine.Root = "/" }
	const config = "etc/containerd/config.toml"
	expectAll(t, map[string]symptom{
		"one that fits":                       {func(*fake) {}, "containerd", "containerd", OK, "1.6.20 answers"},
		"one from Debian":                     {answers(wellRuntime("1.6.20~ds1"), nil), "containerd", "containerd", OK, "1.6.20~ds1"},
		"one with a v":                        {answers(wellRuntime("v2.1.4"), nil), "containerd", "containerd", OK, "2.1.4"},
		"one that is too old":                 {answers(wellRuntime("1.5.9"), nil), "containerd", "containerd", Fail, "older than 1.6"},
		"one that is too new":                 {answers(wellRuntime("v3.0.0"), nil), "containerd", "containerd", Warn, "not among the releases"},
		"none":                                {both(silent, without("containerd")), "containerd", "containerd", Fail, "apt-get install containerd"},
		"one that skiff will start":           {silent, "containerd", "containerd", OK, "skiff init starts it"},
		"one that systemd should run":         {both(silent, systemd), "containerd", "containerd", Fail, "systemctl enable --now containerd"},
		"one that should run with the daemon": {both(silent, func(f *fake) { f.machine.installed = true }), "containerd", "containerd", Fail, "skiff down"},
		"a snapshotter that does not work":    {broken("io.containerd.snapshotter.v1/overlayfs", "overlay not supported"), "containerd", "plugins", Fail, "overlay not supported"},
		"a plugin that is switched off":       {broken("io.containerd.service.v1/leases-service", ""), "containerd", "plugins", Fail, "images cannot be pulled"},
		"no runc":                             {without("runc"), "containerd", "runc", Fail, "apt-get install runc"},
		"an old runc":                         {func(f *fake) { f.programs["runc"] = "runc version 1.0.0-rc93\n" }, "containerd", "runc", Warn, "older than 1.1"},
		"a runc that does not run":            {func(f *fake) { f.programs["runc"] = "error: exec format error" }, "containerd", "runc", Fail, "exec format error"},
		"no conntrack":                        {without("conntrack"), "containerd", "conntrack", Fail, "apt-get install conntrack"},
		"ipvs without ipset":                  {func(f *fake) { f.machine.proxy.Mode = "ipvs" }, "containerd", "ipset", Fail, "apt-get install ipset"},
		"iptables without iptables":           {func(f *fake) { f.machine.proxy.Mode = "iptables" }, "containerd", "iptables-restore", Fail, "apt-get install iptables"},
		"mirrors of the CRI plugin": {func(f *fake) {
			f.write(config, `[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]`)
		}, "containerd", "registries", Warn, "hosts.toml"},
		"registries configured elsewhere": {func(f *fake) { f.write(config, `config_path = "/etc/registries"`) }, "containerd", "registries", Warn, "ln -s /etc/registries /etc/containerd/certs.d"},
	})
}

func TestLeftovers(t *testing.T) {
	t.Parallel()
	runs := func(name string) func(*fake) { return func(f *fake) { f.write("proc/77/comm", name+"\n") } }
	linked := func(name string) func(*fake) {
		return func(f *fake) {
			f.host.links = func() ([]link, error) { return []link{linkOf(name, "10.42.0.1/24")}, nil }
		}
	}
	expectAll(t, map[string]symptom{
		"none":                      {func(*fake) {}, "leftovers", "others", OK, "no trace"},
		"a kubelet that runs":       {runs("kubelet"), "leftovers", "kubeadm", Fail, "kubeadm reset"},
		"a k3s that runs":           {runs("k3s-server"), "leftovers", "k3s", Fail, "k3s-uninstall.sh"},
		"an etcd that runs":         {runs("etcd"), "leftovers", "etcd", Warn, "competes"},
		"files of k3s":              {func(f *fake) { f.write("var/lib/rancher/k3s/x", "") }, "leftovers", "k3s", Warn, "rm -rf /var/lib/rancher/k3s"},
		"a link of Calico":          {linked("cali0123"), "leftovers", "network links", Warn, "ip link delete cali0123"},
		"a link of kube-proxy":      {linked("kube-ipvs0"), "leftovers", "network links", Warn, "kube-proxy"},
		"the same where it is ours": {func(f *fake) { linked("kube-ipvs0")(f); f.machine.proxy.Mode = "ipvs" }, "leftovers", "others", OK, ""},
	})
}

func TestDaemons(t *testing.T) {
	t.Parallel()
	unit := func(installed bool, show string) func(*fake) {
		return func(f *fake) {
			f.write("run/systemd/system/x", "")
			f.machine.Root, f.machine.installed = "/", installed
			f.programs["systemctl"] = strings.ReplaceAll(show, " ", "\n")
		}
	}
	const active = "LoadState=loaded ActiveState=active SubState=running UnitFileState=enabled NRestarts=0"
	expectAll(t, map[string]symptom{
		"before installation":         {unit(false, "LoadState=loaded ActiveState=inactive UnitFileState=disabled"), "daemons", "skiff-agent", OK, "skiff init starts it"},
		"one that runs":               {unit(true, active+" StatusText=leader"), "daemons", "skiff-control", OK, "active, leader"},
		"one that failed":             {unit(true, "LoadState=loaded ActiveState=failed SubState=failed"), "daemons", "skiff-agent", Fail, "journalctl -u skiff-agent"},
		"one that ends at once":       {unit(true, "LoadState=loaded ActiveState=activating SubState=auto-restart NRestarts=12"), "daemons", "skiff-agent", Fail, "12 times"},
		"one that stopped":            {unit(true, "LoadState=loaded ActiveState=inactive SubState=dead"), "daemons", "skiff-proxy", Fail, "systemctl start skiff-proxy"},
		"one that will not come back": {unit(true, "LoadState=loaded ActiveState=active UnitFileState=disabled"), "daemons", "skiff-agent", Warn, "systemctl enable"},
		"one that was restarted":      {unit(true, "LoadState=loaded ActiveState=active UnitFileState=enabled NRestarts=7"), "daemons", "skiff-agent", Warn, "7 times"},
		"one without a unit":          {unit(true, "LoadState=not-found ActiveState=inactive"), "daemons", "skiff-agent", Warn, "apt-get install skiff-agent"},
	})
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	made := func(f *fake) {
		f.machine.installed = true
		if _, err := pki.EnsureControl(pki.Control{Dir: f.machine.PKI(), ServiceCIDR: "10.96.0.0/16", ClusterDomain: "cluster.local"}); err != nil {
			f.t.Fatal(err)
		}
	}
	expectAll(t, map[string]symptom{
		"none yet":                {func(*fake) {}, "certificates", "certificates", OK, "skiff init makes them"},
		"none where they must be": {func(f *fake) { f.machine.installed = true }, "certificates", "certificates", Fail, "no such file"},
		"all in order":            {func(f *fake) { made(f); f.host.now = realHost().now }, "certificates", "certificates", OK, "are in order"},
		"one that is damaged":     {func(f *fake) { made(f); f.write("etc/skiff/pki/apiserver.crt", "x") }, "certificates", "apiserver", Fail, "holds no PEM"},
		"one that was not renewed": {func(f *fake) {
			made(f)
			soon := realHost().now().AddDate(0, 11, 10)
			f.host.now = func() time.Time { return soon }
		}, "certificates", "apiserver", Warn, "skiff pki renew apiserver"},
	})
}

func TestOthersThanRootSeeLessAndAreTold(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.host.privileged = false
	f.host.dial = answersAnything(t)
	report := run(t.Context(), &f.host, &f.machine, areas)
	if report.Failures > 0 || report.Warnings > 0 {
		t.Errorf("complaints: %+v", report.Findings)
	}
	for _, what := range []string{"containerd", "firewalls", "certificates", "the speed of the store's disk"} {
		if !slices.Contains(report.Skipped, what) {
			t.Errorf("%q is not named among %q", what, report.Skipped)
		}
	}
	var out bytes.Buffer
	report.Print(&out, true)
	if !strings.Contains(out.String(), "Only root can look at: ") {
		t.Errorf("not said:\n%s", &out)
	}
}

func TestAReportIsReadAndCounted(t *testing.T) {
	t.Parallel()
	r := &Report{Host: "m1", Role: "worker", Installed: true, Findings: []Finding{
		{Area: "kernel", Check: "version", Status: OK, Found: "6.1.0"},
		{Area: "kernel", Check: "veth", Status: Fail, Found: "missing", Remedy: []string{"modprobe veth"}},
		{Area: "dns", Check: "resolv.conf", Status: Warn, Found: "slow", Remedy: []string{"one", "two"}},
	}}
	r.count()
	var out bytes.Buffer
	r.Print(&out, false)
	const want = `m1 as a worker machine, installed

kernel
  ok    version               6.1.0
  fail  veth                  missing
          modprobe veth

dns
  warn  resolv.conf           slow
          one
          two

1 ok, 1 warn, 1 fail
`
	if out.String() != want {
		t.Errorf("got\n%s", &out)
	}
	if r.Verdict() == nil || (&Report{Warnings: 3}).Verdict() != nil {
		t.Error("only what fails makes the exit code 1")
	}
	data, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(data), `{"area":"kernel","check":"veth","status":"fail","found":"missing","remedy":["modprobe veth"]}`) {
		t.Errorf("JSON %s, %v", data, err)
	}
}

func TestOptionsThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	l := up.Layout{Root: root}
	if err := os.MkdirAll(filepath.Join(root, "etc/skiff"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.SaveMachine(up.Machine{Role: operator.Worker}); err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]Options{
		"--role":              {Layout: l, Role: "master"},
		"--node-ip":           {Layout: l, NodeIP: "here"},
		"--server":            {Layout: l, Server: "http://x"},
		"as a worker machine": {Layout: l, Role: "control"},
	} {
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
}

// TestTheRealMachine runs every area on the machine the tests run on, twice, and
// compares what it must not change.
func TestTheRealMachine(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	tables := func() string {
		output, err := exec.Command("nft", "list", "tables").Output()
		if err != nil {
			return "" // no nft, or not root
		}
		return string(output)
	}
	before := tables()
	report, err := Run(t.Context(), Options{Layout: up.Layout{Root: root}, Role: "control"})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range report.Findings {
		seen[f.Area] = true
	}
	for _, a := range []string{"kernel", "settings", "cgroups", "resources", "security", "containerd", "name", "address", "ports", "dns", "time"} {
		if !seen[a] {
			t.Errorf("nothing was found about %s", a)
		}
	}
	if strings.Contains(tables(), "skiff-check") || strings.Contains(before, "skiff-check") {
		t.Error("the trial rules were taken by the kernel")
	}
	left, err := os.ReadDir(root)
	if err != nil || len(left) > 0 {
		t.Errorf("left below the root: %v, %v", left, err)
	}
	if report.OK == 0 || report.Version == "" || report.Host == "" {
		t.Errorf("report %+v", report)
	}
}
