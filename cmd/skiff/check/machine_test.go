package check

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/cmd/skiff/up"
	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/operator"
)

// noon is when everything here happens.
var noon = time.Date(2026, time.November, 30, 12, 0, 0, 0, time.UTC)

// wellFiles are those of a Debian machine with nothing wrong.
var wellFiles = map[string]string{
	"lib/modules/6.1.0/modules.builtin": "kernel/net/netfilter/nf_conntrack.ko\n",
	"lib/modules/6.1.0/modules.dep": "kernel/fs/overlayfs/overlay.ko.xz:\nkernel/drivers/net/veth.ko:\nkernel/net/bridge/bridge.ko: kernel/net/802/stp.ko\n" +
		"kernel/net/netfilter/nf_nat.ko:\nkernel/net/netfilter/ipvs/ip_vs.ko:\nkernel/net/netfilter/ipvs/ip_vs_rr.ko:\nkernel/net/netfilter/ipset/ip_set.ko:\n",
	"sys/module/nf_tables/refcnt": "1",
	"proc/self/ns/net":            "", "proc/self/ns/mnt": "", "proc/self/ns/pid": "", "proc/self/ns/uts": "", "proc/self/ns/ipc": "", "proc/self/ns/user": "",
	"proc/sys/user/max_user_namespaces":         "15000",
	"proc/sys/kernel/seccomp/actions_avail":     "allow",
	"proc/cmdline":                              "BOOT_IMAGE=/vmlinuz root=/dev/vda1 quiet",
	"proc/self/status":                          "CapBnd:\t000001ffffffffff",
	"proc/self/mounts":                          "/dev/vda1 / ext4 rw 0 0\nproc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0",
	"sys/fs/cgroup/cgroup.controllers":          "cpuset cpu io memory pids",
	"proc/meminfo":                              "MemTotal: 4000000 kB\nMemAvailable: 3000000 kB\nSwapTotal: 0 kB",
	"proc/cpuinfo":                              "processor : 0\nprocessor : 1",
	"proc/sys/net/ipv4/ip_forward":              "1",
	"proc/sys/net/ipv4/conf/all/rp_filter":      "0",
	"proc/sys/net/ipv4/conf/eth0/rp_filter":     "0",
	"proc/sys/fs/inotify/max_user_instances":    "1024",
	"proc/sys/net/ipv4/ip_local_port_range":     "32768\t60999",
	"proc/sys/net/netfilter/nf_conntrack_max":   "262144",
	"proc/sys/net/netfilter/nf_conntrack_count": "100",
	"proc/sys/vm/overcommit_memory":             "0",
	"proc/sys/vm/panic_on_oom":                  "0",
	"proc/sys/kernel/panic":                     "0",
	"etc/machine-id":                            "0123456789abcdef0123456789abcdef",
	"etc/resolv.conf":                           "search example.org\nnameserver 192.0.2.53",
	"var/lib/dpkg/status":                       "",
	"proc/net/tcp":                              "  sl  local_address rem_address   st\n",
}

// fake is a made-up machine. Tests change it before they look.
type fake struct {
	t       *testing.T
	root    string
	host    host
	machine machine
	// programs print this; those that are not here are not installed.
	programs map[string]string
	cluster  *cluster
}

// newFake is a control machine before installation, with nothing wrong.
func newFake(t *testing.T) *fake {
	f := &fake{t: t, root: t.TempDir(), programs: map[string]string{"runc": "runc version 1.1.5\n", "nft": `{"nftables":[]}`, "conntrack": "", "containerd": "containerd github.com/containerd/containerd 1.6.20 x"}}
	for name, content := range wellFiles {
		f.write(name, content)
	}
	f.host = host{
		root: f.root, privileged: true,
		now:      func() time.Time { return noon },
		kernel:   func() (string, string, error) { return "6.1.0", "x86_64", nil },
		hostname: func() (string, error) { return "m1", nil },
		clock:    func() (clockState, error) { return clockState{synchronized: true, maxError: time.Millisecond}, nil },
		links: func() ([]link, error) {
			return []link{linkOf("lo", "127.0.0.1/8"), linkOf("eth0", "192.168.56.11/24")}, nil
		},
		source:  func(string) (netip.Addr, error) { return netip.MustParseAddr("192.168.56.11"), nil },
		dial:    func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no network here") },
		resolve: func(context.Context, string) ([]string, error) { return []string{"127.0.1.1"}, nil },
		lookPath: func(program string) (string, error) {
			if _, known := f.programs[program]; !known {
				return "", fs.ErrNotExist
			}
			return "/usr/bin/" + program, nil
		},
		run: func(_ context.Context, _, program string, args ...string) (string, error) {
			for _, name := range []string{strings.Join(append([]string{filepath.Base(program)}, args...), " "), filepath.Base(program)} {
				if output, known := f.programs[name]; known {
					if complaint, failed := strings.CutPrefix(output, "error: "); failed {
						return "", errors.New(complaint)
					}
					return output, nil
				}
			}
			return "", fs.ErrNotExist
		},
		space: func(string) (space, error) {
			return space{size: 100 << 30, free: 50 << 30, inodes: 1000000, freeInodes: 900000}, nil
		},
		syncs: func(context.Context, string, time.Duration) ([]time.Duration, error) {
			return repeat(time.Millisecond, 500), nil
		},
		runtime: func(context.Context, string) (*runtimeInfo, error) { return wellRuntime("1.6.20"), nil },
	}
	f.host.cluster = func(context.Context, *machine) (*cluster, error) {
		if f.cluster == nil {
			return nil, errAlone
		}
		return f.cluster, nil
	}
	f.machine = machine{
		Layout: up.Layout{Root: f.root}, role: operator.Control, hostName: "m1",
		control: config.DefaultControl(), agent: config.DefaultAgent(), proxy: config.DefaultProxy(),
	}
	f.machine.agent.NodeName, f.machine.agent.NodeIP = "m1", "192.168.56.11"
	f.machine.control.AdvertiseAddress = "192.168.56.11"
	return f
}

func (f *fake) write(name, content string) {
	f.t.Helper()
	path := filepath.Join(f.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fake) remove(name string) {
	f.t.Helper()
	if err := os.RemoveAll(filepath.Join(f.root, name)); err != nil {
		f.t.Fatal(err)
	}
}

// look examines one area, or all.
func (f *fake) look(name string) []Finding {
	f.t.Helper()
	var chosen []area
	for _, a := range areas {
		if name == "" || a.name == name {
			chosen = append(chosen, a)
		}
	}
	if len(chosen) == 0 {
		f.t.Fatalf("there is no area %q", name)
	}
	report := run(f.t.Context(), &f.host, &f.machine, chosen)
	for _, finding := range report.Findings {
		if finding.Check == "" || finding.Found == "" || (finding.Status == OK) != (len(finding.Remedy) == 0) && !remediless[finding.Check] {
			f.t.Errorf("not complete, or a remedy for what is well: %+v", finding)
		}
	}
	return report.Findings
}

// remediless are complaints that no command helps against.
var remediless = map[string]bool{"memory": true, "configuration": true, "containerd": true, "controllers": true, "store disk speed": true}

// expect looks at one area and wants one finding.
func (f *fake) expect(area, check string, status Status, found string) {
	f.t.Helper()
	findings := f.look(area)
	i := slices.IndexFunc(findings, func(each Finding) bool { return each.Check == check && each.Status == status })
	if i < 0 || !strings.Contains(findings[i].Found+"\n"+strings.Join(findings[i].Remedy, "\n"), found) {
		f.t.Errorf("want %s %s: ... %s; found %+v", status, check, found, findings)
	}
}

func linkOf(name string, addresses ...string) link {
	l := link{name: name, up: true}
	for _, a := range addresses {
		l.addresses = append(l.addresses, netip.MustParsePrefix(a))
	}
	return l
}

func repeat(d time.Duration, n int) []time.Duration { return slices.Repeat([]time.Duration{d}, n) }

func wellRuntime(version string) *runtimeInfo {
	info := &runtimeInfo{version: version, plugins: map[string]string{"io.containerd.snapshotter.v1/overlayfs": ""}}
	for name := range neededPlugins {
		info.plugins[name] = ""
	}
	return info
}

// symptom is a change to a machine that is well, and what has to be found.
type symptom struct {
	change func(*fake)
	area   string
	check  string
	status Status
	// found is part of the finding or its remedy.
	found string
}

func expectAll(t *testing.T, symptoms map[string]symptom) {
	t.Helper()
	for name, s := range symptoms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			s.change(f)
			f.expect(s.area, s.check, s.status, s.found)
		})
	}
}

func TestAMachineThatIsWellGivesNoComplaint(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.write("etc/resolv.conf", "nameserver 192.0.2.53")
	f.host.dial = answersAnything(t)
	for _, finding := range f.look("") {
		if finding.Status != OK {
			t.Errorf("%+v", finding)
		}
	}
}
