package check

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Kernels before oldest lack what nftables and cgroup v2 need here; those before
// proven are older than any the tests run on.
var (
	oldest = [2]int{5, 4}
	proven = [2]int{5, 10}
)

// feature of the kernel that pods or services need.
type feature struct {
	module, option string
	// purpose completes "without it ...".
	without string
}

var neededFeatures = []feature{
	{"overlay", "OVERLAY_FS", "no container starts"},
	{"veth", "VETH", "pods have no network"},
	{"bridge", "BRIDGE", "pods have no network"},
	{"nf_conntrack", "NF_CONNTRACK", "services do not work"},
	{"nf_nat", "NF_NAT", "services do not work"},
	{"nf_tables", "NF_TABLES", "pods do not reach the world, and host ports do not work"},
}

// namespaces that containers are made of, by their file in /proc/self/ns.
var namespaces = []string{"net", "mnt", "pid", "uts", "ipc"}

func checkKernel(ctx context.Context, e *examination) {
	release, architecture, err := e.kernel()
	if err != nil {
		e.fail("version", "cannot be found out: "+err.Error())
		return
	}
	e.kernelVersion(release, architecture)
	f := e.features(release)
	for _, each := range neededFeatures {
		if each.module == "overlay" && e.agent.Snapshotter != "overlayfs" {
			continue
		}
		e.feature(f, each)
	}
	e.modeFeatures(f)
	e.ruleset(ctx, f)
	switch f.has("br_netfilter", "BRIDGE_NETFILTER") {
	case present:
		e.ok("br_netfilter", "loaded; neither needed nor in the way: pods' traffic is routed")
	default:
		e.ok("br_netfilter", "not loaded, and not needed: pods' traffic is routed")
	}
	e.namespaces()
	e.bootParameters()
}

func (e *examination) kernelVersion(release, architecture string) {
	var v [2]int
	parts := strings.FieldsFunc(release, func(r rune) bool { return r < '0' || r > '9' })
	for i := range min(len(parts), len(v)) {
		v[i], _ = strconv.Atoi(parts[i]) // digits only
	}
	older := func(than [2]int) bool { return v[0] < than[0] || v[0] == than[0] && v[1] < than[1] }
	remedy := "apt-get update && apt-get dist-upgrade && reboot"
	switch {
	case older(oldest):
		e.fail("version", fmt.Sprintf("%s: older than %d.%d, with which pods and services do not work reliably", release, oldest[0], oldest[1]), remedy)
	case older(proven):
		e.warn("version", fmt.Sprintf("%s: older than %d.%d, the oldest Skiff is tested with", release, proven[0], proven[1]), remedy)
	default:
		e.ok("version", "%s, %s", release, architecture)
	}
}

// feature reports one that is needed.
func (e *examination) feature(f *features, want feature) {
	switch f.has(want.module, want.option) {
	case present:
		e.ok(want.module, "present")
	case loadable:
		e.ok(want.module, "a module, loaded when it is needed")
	case orphaned:
		e.fail(want.module, fmt.Sprintf("a module, but the modules of the running kernel %s are not on the disk, so %s: a newer kernel was installed and not started yet, or the package of modules is missing", f.release, want.without),
			"reboot", "# or, if that does not help: apt-get install linux-modules-extra-"+f.release+" || apt-get install linux-image-"+f.release)
	case absent:
		remedy := "apt-get install linux-image-amd64 && reboot   # a kernel that has CONFIG_" + want.option
		found := "missing in this kernel: " + want.without
		if f.frozen && f.files[underscored(want.module)] {
			found = "not loaded, and this kernel takes no more modules (kernel.modules_disabled=1): " + want.without
			remedy = "echo " + want.module + " > /etc/modules-load.d/skiff-" + want.module + ".conf && reboot"
		}
		e.fail(want.module, found, remedy)
	default:
		e.warn(want.module, "cannot be found out: this kernel tells neither its configuration nor its modules; without it "+want.without,
			"modprobe "+want.module)
	}
}

// modeFeatures are those that only some ways of programming services need.
func (e *examination) modeFeatures(f *features) {
	switch e.proxy.Mode {
	case "ipvs":
		e.feature(f, feature{"ip_vs", "IP_VS", "the configured proxy mode ipvs does not work"})
		scheduler := e.proxy.IPVS.Scheduler
		e.feature(f, feature{"ip_vs_" + scheduler, "IP_VS_" + strings.ToUpper(scheduler), "the configured ipvs scheduler " + scheduler + " does not work"})
		e.feature(f, feature{"ip_set", "IP_SET", "the configured proxy mode ipvs does not work"})
	case "iptables":
		if e.proxy.IPTables.Variant == "legacy" {
			e.feature(f, feature{"ip_tables", "IP_NF_IPTABLES", "the configured proxy mode iptables does not work"})
		}
	}
}

// trial is a set of rules as proxy and agent make them, which the kernel is
// asked to check and not to take.
const trial = `table inet skiff-check {
	map m { type ipv4_addr . inet_proto . inet_service : verdict; }
	set s { type ipv4_addr; flags dynamic,timeout; }
	chain d {
		meta l4proto tcp dnat ip to 192.0.2.1:80
	}
	chain n {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local ip daddr . meta l4proto . th dport vmap @m
		numgen random mod 2 vmap { 0 : goto d, 1 : goto d }
	}
	chain p {
		type nat hook postrouting priority srcnat; policy accept;
		ct mark 1 masquerade fully-random
	}
	chain f {
		type filter hook forward priority filter; policy accept;
		ct state new update @s { ip saddr timeout 60s }
		reject
	}
}
`

func (e *examination) ruleset(ctx context.Context, f *features) {
	if f.has("nf_tables", "NF_TABLES") <= orphaned {
		return // said already
	}
	if _, err := e.lookPath("nft"); err != nil {
		return // said among the programs
	}
	if !e.rootOnly("whether the kernel takes nftables rules") {
		return
	}
	_, err := e.run(ctx, trial, "nft", "--check", "--file", "-")
	if err != nil && ctx.Err() != nil {
		// A slow machine that loads the modules for the first time is not to blame.
		e.warn("nftables rules", "nft has not answered in time: run the check again")
		return
	}
	if err != nil {
		e.fail("nftables rules", "the kernel refuses rules as services need them: "+firstLine(err.Error()), "apt-get install linux-image-amd64 && reboot   # a kernel with nftables' NAT, fib and numgen")
		return
	}
	e.ok("nftables rules", "the kernel takes rules as services need them")
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

func (e *examination) namespaces() {
	var missing []string
	for _, name := range namespaces {
		if !e.lexists("proc/self/ns/" + name) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		e.fail("namespaces", "missing in this kernel: "+strings.Join(missing, ", ")+"; no container starts", "apt-get install linux-image-amd64 && reboot")
	} else {
		e.ok("namespaces", "%s", strings.Join(namespaces, ", "))
	}
	if !e.lexists("proc/self/ns/user") || e.text("proc/sys/user/max_user_namespaces") == "0" {
		e.warn("user namespaces", "switched off: pods with hostUsers: false do not start",
			"echo user.max_user_namespaces=15000 > /etc/sysctl.d/90-skiff-userns.conf && sysctl --system")
	}
	if !e.exists("proc/sys/kernel/seccomp/actions_avail") {
		e.warn("seccomp", "missing in this kernel: pods with a seccomp profile do not start", "apt-get install linux-image-amd64 && reboot")
	}
}

// bootParameters finds those that take away what pods need.
func (e *examination) bootParameters() {
	parameters := strings.Fields(e.text("proc/cmdline"))
	bad := false
	for _, p := range parameters {
		name, value, _ := strings.Cut(p, "=")
		switch {
		case name == "cgroup_disable" && strings.Contains(value, "memory"):
			// What the cgroup area finds, if it was not turned on again by another parameter.
			bad = true
			if e.memoryCgroup() {
				bad = false
			} else {
				e.fail("boot parameters", p+" keeps pods' memory limits from working", e.bootRemedy("cgroup_enable=memory"), "reboot")
			}
		case name == "systemd.unified_cgroup_hierarchy" && (value == "0" || value == "false" || value == "no"):
			bad = true
			e.warn("boot parameters", p+" chooses cgroup v1, which kernel and systemd are giving up", "sed -i 's/ *"+p+"//' /etc/default/grub && update-grub && reboot")
		}
	}
	if !bad {
		e.ok("boot parameters", "none that is in the way")
	}
}

// bootRemedy adds a kernel parameter where the machine keeps them.
func (e *examination) bootRemedy(parameter string) string {
	for _, file := range []string{"/boot/firmware/cmdline.txt", "/boot/cmdline.txt"} {
		if e.exists(file) {
			return "sed -i 's/$/ " + parameter + "/' " + file
		}
	}
	return `sed -i 's/^GRUB_CMDLINE_LINUX="/&` + parameter + ` /' /etc/default/grub && update-grub`
}
