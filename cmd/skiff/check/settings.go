package check

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// persist makes a kernel setting now and at every boot.
func persist(name, value string) string {
	return fmt.Sprintf("echo '%s = %s' >> /etc/sysctl.d/90-skiff.conf && sysctl --system", name, value)
}

// setting is a kernel setting's value, false when this kernel has none.
func (h *host) setting(name string) (string, bool) {
	file := "proc/sys/" + strings.ReplaceAll(name, ".", "/")
	return h.text(file), h.exists(file)
}

// number is a setting that is one.
func (h *host) number(name string) (int64, bool) {
	text, known := h.setting(name)
	n, err := strconv.ParseInt(text, 10, 64)
	return n, known && err == nil
}

func checkSettings(_ context.Context, e *examination) {
	e.forwarding("net.ipv4.ip_forward")
	e.pathFilter()
	e.bridgeFilter()
	// Most programs that watch their configuration take an instance each, and
	// all pods of one user share them.
	e.atLeast("fs.inotify.max_user_instances", 256, 1024, "programs in pods fail with \"too many open files\" when they want to watch files")
	e.atLeast("fs.inotify.max_user_watches", 65536, 524288, "programs in pods fail with \"no space left on device\" when they want to watch files")
	e.atLeast("fs.file-max", 100000, 1000000, "daemons and pods fail with \"too many open files in system\"")
	e.atLeast("kernel.pid_max", 32768, 4194304, "the machine runs out of process ids")
	e.connectionTable()
	e.ephemeralPorts()
	if v, known := e.number("vm.overcommit_memory"); known && v == 2 {
		e.fail("vm.overcommit_memory", "2: programs fail for want of memory that nobody uses, skiff's daemons too", persist("vm.overcommit_memory", "1"))
	} else if known {
		e.ok("vm.overcommit_memory", "%d", v)
	}
	e.panics()
}

// forwarding: the agent turns it on when it starts; what turns it off again is the trouble.
func (e *examination) forwarding(name string) {
	value, known := e.setting(name)
	if !known {
		return
	}
	file, lasting := e.configuredSetting(name)
	switch {
	case value != "1" && e.installed:
		remedy := []string{"sysctl -w " + name + "=1"}
		if lasting == "0" {
			remedy = append(remedy, "sed -i '/ip_forward/d' "+file)
		}
		e.fail(name, value+": something turned it off; no packet reaches a pod on this machine or leaves one", remedy...)
	case lasting == "0":
		e.warn(name, file+" sets it to 0: whenever that is applied again, this machine's pods lose their network", "sed -i '/ip_forward/d' "+file)
	case value != "1" && e.readOnly("/proc/sys"):
		e.fail(name, value+", and /proc/sys is read-only, as in a container: pods have no network", "sysctl -w "+name+"=1   # on the machine that this one runs on")
	case value != "1":
		e.ok(name, "%s; the agent turns it on", value)
	default:
		e.ok(name, "1")
	}
}

// configuredSetting is what the files of sysctl.d set at boot, with the file
// that has the last word.
func (h *host) configuredSetting(name string) (file, value string) {
	byName := map[string]string{}
	// Of several files of one name the first folder's counts.
	for _, folder := range []string{"/usr/lib/sysctl.d", "/run/sysctl.d", "/etc/sysctl.d"} {
		for _, path := range h.glob(folder + "/*.conf") {
			byName[filepath.Base(path)] = path
		}
	}
	var files []string
	for _, base := range slices.Sorted(maps.Keys(byName)) {
		files = append(files, byName[base])
	}
	wanted := strings.ReplaceAll(name, "/", ".")
	for _, path := range append(files, "/etc/sysctl.conf") {
		for _, line := range h.lines(path) {
			key, v, ok := strings.Cut(line, "=")
			key = strings.ReplaceAll(strings.TrimPrefix(strings.TrimSpace(key), "-"), "/", ".")
			if ok && key == wanted {
				file, value = path, strings.TrimSpace(v)
			}
		}
	}
	return file, value
}

// readOnly says whether a path cannot be written because of its mount.
func (h *host) readOnly(path string) bool { return slices.Contains(h.mountOf(path).options, "ro") }

// pathFilter: strict reverse path filtering drops what comes by another link than
// the answer would take, which is common on machines with several networks.
func (e *examination) pathFilter() {
	links, err := e.links()
	if err != nil {
		return
	}
	all, _ := e.number("net.ipv4.conf.all.rp_filter")
	var strict []string
	cards := nodeLinks(links)
	for _, l := range cards {
		if own, known := e.number("net.ipv4.conf." + l.name + ".rp_filter"); known && max(all, own) == 1 {
			strict = append(strict, l.name)
		}
	}
	switch {
	case len(strict) > 0 && len(cards) > 1:
		e.warn("rp_filter", "strict on "+strings.Join(strict, ", ")+" of a machine with several networks: packets that come in by another link than the answer takes vanish", persist("net.ipv4.conf.all.rp_filter", "2"))
	case len(strict) > 0:
		e.ok("rp_filter", "strict on %s, this machine's only network", strings.Join(strict, ", "))
	default:
		e.ok("rp_filter", "loose or off")
	}
}

// bridgeFilter is named because people of other distributions look for it.
func (e *examination) bridgeFilter() {
	if value, known := e.setting("net.bridge.bridge-nf-call-iptables"); known {
		e.ok("bridge-nf-call", "%s; either works, because pods' traffic is routed", value)
	}
}

func (e *examination) atLeast(name string, least, good int64, below string) {
	value, known := e.number(name)
	switch {
	case !known:
	case value < least:
		e.warn(name, fmt.Sprintf("%d: with many pods %s", value, below), persist(name, fmt.Sprint(good)))
	default:
		e.ok(name, "%d", value)
	}
}

// connectionTable: what does not fit into it is dropped.
func (e *examination) connectionTable() {
	const name = "net.netfilter.nf_conntrack_max"
	most, known := e.number(name)
	used, _ := e.number("net.netfilter.nf_conntrack_count")
	switch {
	case !known:
		return // tracking begins with the first rule that needs it
	case used*10 > most*9:
		e.fail(name, fmt.Sprintf("%d of %d connections are in use: further ones are dropped", used, most), persist(name, fmt.Sprint(most*4)))
	case used*10 > most*7 || most < 65536:
		e.warn(name, fmt.Sprintf("%d, of which %d are in use: connections beyond are dropped", most, used), persist(name, fmt.Sprint(max(262144, most*2))))
	default:
		e.ok(name, "%d, of which %d are in use", most, used)
	}
}

// ephemeralPorts must leave the daemons' and services' ports alone, or an
// outgoing connection has one when it is wanted.
func (e *examination) ephemeralPorts() {
	const name = "net.ipv4.ip_local_port_range"
	text, known := e.setting(name)
	f := strings.Fields(text)
	if !known || len(f) != 2 {
		return
	}
	from, err := strconv.Atoi(f[0])
	if err != nil {
		return
	}
	_, last, _ := strings.Cut(e.control.NodePortRange, "-")
	lastNodePort, _ := strconv.Atoi(last) // the configuration was checked
	reserved, _ := e.setting("net.ipv4.ip_local_reserved_ports")
	if from <= lastNodePort && reserved == "" {
		e.warn(name, fmt.Sprintf("from %d on: an outgoing connection may have a port of a service or a daemon (node ports are %s)", from, e.control.NodePortRange),
			persist(name, fmt.Sprintf("%d %s", lastNodePort+1, f[1])))
		return
	}
	e.ok(name, "%s to %s", f[0], f[1])
}

// panics says what becomes of the machine when its kernel panics.
func (e *examination) panics() {
	if v, known := e.number("vm.panic_on_oom"); known && v == 2 {
		e.warn("vm.panic_on_oom", "2: a pod that uses more memory than its limit takes the whole machine down", persist("vm.panic_on_oom", "0"))
	} else if known {
		e.ok("vm.panic_on_oom", "%d", v)
	}
	switch v, known := e.number("kernel.panic"); {
	case !known:
	case v == 0:
		e.ok("kernel.panic", "0: a kernel that panics waits for somebody to reset the machine; 10 starts it again after 10 s")
	default:
		e.ok("kernel.panic", "%d", v)
	}
}
