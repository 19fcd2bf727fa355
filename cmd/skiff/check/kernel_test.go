package check

import (
	"testing"
	"time"
)

func TestKernel(t *testing.T) {
	t.Parallel()
	release := func(r string) func(*fake) {
		return func(f *fake) { f.host.kernel = func() (string, string, error) { return r, "x86_64", nil } }
	}
	expectAll(t, map[string]symptom{
		"a kernel that is too old":            {release("4.19.0-27-amd64"), "kernel", "version", Fail, "older than 5.4"},
		"a kernel older than any tested":      {release("5.4.0-200-generic"), "kernel", "version", Warn, "older than 5.10"},
		"a feature that is a module":          {func(*fake) {}, "kernel", "overlay", OK, "loaded when it is needed"},
		"a feature that is built in":          {func(*fake) {}, "kernel", "nf_conntrack", OK, "present"},
		"a feature that is loaded":            {func(*fake) {}, "kernel", "nf_tables", OK, "present"},
		"a feature that is missing":           {func(f *fake) { f.write("lib/modules/6.1.0/modules.dep", "kernel/x.ko:\n") }, "kernel", "veth", Fail, "pods have no network"},
		"a kernel whose modules are gone":     {func(f *fake) { f.remove("lib/modules"); f.write("boot/config-6.1.0", "CONFIG_VETH=m\n") }, "kernel", "veth", Fail, "reboot"},
		"a kernel that says nothing":          {func(f *fake) { f.remove("lib/modules") }, "kernel", "veth", Warn, "modprobe veth"},
		"a kernel that takes no more modules": {func(f *fake) { f.write("proc/sys/kernel/modules_disabled", "1") }, "kernel", "veth", Fail, "modules-load.d"},
		"ipvs where the kernel has it":        {func(f *fake) { f.machine.proxy.Mode = "ipvs" }, "kernel", "ip_vs", OK, ""},
		"an ipvs scheduler the kernel lacks":  {func(f *fake) { f.machine.proxy.Mode, f.machine.proxy.IPVS.Scheduler = "ipvs", "mh" }, "kernel", "ip_vs_mh", Fail, "scheduler mh"},
		"rules that the kernel refuses":       {func(f *fake) { f.programs["nft --check --file -"] = "error: No such file or directory" }, "kernel", "nftables rules", Fail, "refuses"},
		"a missing namespace":                 {func(f *fake) { f.remove("proc/self/ns/pid") }, "kernel", "namespaces", Fail, "pid"},
		"no namespaces of users":              {func(f *fake) { f.write("proc/sys/user/max_user_namespaces", "0") }, "kernel", "user namespaces", Warn, "hostUsers"},
		"no seccomp":                          {func(f *fake) { f.remove("proc/sys/kernel/seccomp") }, "kernel", "seccomp", Warn, "seccomp"},
		"memory cgroup switched off at boot": {func(f *fake) {
			f.write("proc/cmdline", "cgroup_disable=memory")
			f.write("sys/fs/cgroup/cgroup.controllers", "cpu pids")
			f.write("boot/firmware/cmdline.txt", "")
		}, "kernel", "boot parameters", Fail, "/boot/firmware/cmdline.txt"},
		"memory cgroup switched on after all": {func(f *fake) { f.write("proc/cmdline", "cgroup_disable=memory cgroup_enable=memory") }, "kernel", "boot parameters", OK, ""},
		"cgroup v1 chosen at boot":            {func(f *fake) { f.write("proc/cmdline", "systemd.unified_cgroup_hierarchy=0") }, "kernel", "boot parameters", Warn, "update-grub"},
		"cgroup without memory":               {func(f *fake) { f.write("sys/fs/cgroup/cgroup.controllers", "cpu pids") }, "cgroups", "controllers", Fail, "cgroup_enable=memory"},
		"cgroup without cpuset":               {func(f *fake) { f.write("sys/fs/cgroup/cgroup.controllers", "cpu memory pids io") }, "cgroups", "controllers", Warn, "cpuset"},
		"no cgroups at all":                   {func(f *fake) { f.write("proc/self/mounts", "/dev/vda1 / ext4 rw 0 0") }, "cgroups", "version", Fail, "no container starts"},
		"cgroup v1": {func(f *fake) {
			f.write("proc/self/mounts", "/dev/vda1 / ext4 rw 0 0\nc /sys/fs/cgroup/memory cgroup rw,memory 0 0")
		}, "cgroups", "controllers", Fail, "cpu, pids, freezer, devices"},
		"cgroups that cannot be written":     {func(f *fake) { f.write("proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 ro 0 0") }, "cgroups", "writable", Fail, "read-only"},
		"systemd makes the groups":           {func(f *fake) { f.write("run/systemd/system/x", "") }, "cgroups", "driver", OK, "systemd"},
		"the systemd driver without systemd": {func(f *fake) { f.machine.agent.CgroupDriver = "systemd" }, "cgroups", "driver", Fail, "not PID 1"},
		"the cgroupfs driver beside systemd": {func(f *fake) { f.machine.agent.CgroupDriver = "cgroupfs"; f.write("run/systemd/system/x", "") }, "cgroups", "driver", Warn, "daemon-reload"},
		"a capability that is missing":       {func(f *fake) { f.write("proc/self/status", "CapBnd:\t000001fffeffffff") }, "security", "CAP_SYS_RESOURCE", Warn, "privileged"},
		"a capability nothing works without": {func(f *fake) { f.write("proc/self/status", "CapBnd:\t000001ffffdfffff") }, "security", "CAP_SYS_ADMIN", Fail, "no container"},
		"AppArmor without its parser":        {func(f *fake) { f.write("sys/module/apparmor/parameters/enabled", "Y") }, "security", "AppArmor", Warn, "apt-get install apparmor"},
		"SELinux that enforces":              {func(f *fake) { f.write("sys/fs/selinux/enforce", "1") }, "security", "SELinux", Warn, "setenforce 0"},
		"little memory":                      {func(f *fake) { f.write("proc/meminfo", "MemTotal: 600000 kB\nMemAvailable: 500000 kB") }, "resources", "memory", Warn, "leaves little"},
		"too little memory":                  {func(f *fake) { f.write("proc/meminfo", "MemTotal: 300000 kB\nMemAvailable: 200000 kB") }, "resources", "memory", Fail, "too little"},
		"memory that is used up":             {func(f *fake) { f.write("proc/meminfo", "MemTotal: 4000000 kB\nMemAvailable: 50000 kB") }, "resources", "memory", Warn, "evicted"},
		"swap on a control machine": {func(f *fake) {
			f.write("proc/meminfo", "MemTotal: 4000000 kB\nMemAvailable: 3000000 kB\nSwapTotal: 1000000 kB")
		}, "resources", "swap", Warn, "swapoff"},
		"a clock nobody keeps":         {func(f *fake) { f.host.clock = func() (clockState, error) { return clockState{}, nil } }, "time", "synchronized", Warn, "chrony"},
		"a hardware clock that is off": {func(f *fake) { f.write("sys/class/rtc/rtc0/since_epoch", "1000000000") }, "time", "hardware clock", Warn, "hwclock"},
		"a hardware clock in local time counts not": {func(f *fake) {
			f.write("sys/class/rtc/rtc0/since_epoch", "1000000000")
			f.write("etc/adjtime", "0 0 0\n0\nLOCAL\n")
		}, "time", "synchronized", OK, "at most 1ms"},
	})
}

func TestSettings(t *testing.T) {
	t.Parallel()
	set := func(name, value string) func(*fake) { return func(f *fake) { f.write("proc/sys/"+name, value) } }
	both := func(changes ...func(*fake)) func(*fake) {
		return func(f *fake) {
			for _, change := range changes {
				change(f)
			}
		}
	}
	installed := func(f *fake) { f.machine.installed = true }
	file := func(name, content string) func(*fake) { return func(f *fake) { f.write(name, content) } }
	off := set("net/ipv4/ip_forward", "0")
	const forward = "net.ipv4.ip_forward"
	expectAll(t, map[string]symptom{
		"forwarding off before installation":        {off, "settings", forward, OK, "the agent turns it on"},
		"forwarding turned off afterwards":          {both(off, installed), "settings", forward, Fail, "sysctl -w net.ipv4.ip_forward=1"},
		"forwarding turned off by a file":           {both(off, installed, file("etc/sysctl.d/99-hard.conf", "net.ipv4.ip_forward=0")), "settings", forward, Fail, "/etc/sysctl.d/99-hard.conf"},
		"a file that will turn it off":              {file("etc/sysctl.conf", "# x\nnet/ipv4/ip_forward = 0"), "settings", forward, Warn, "/etc/sysctl.conf"},
		"a file that another overrules":             {both(file("usr/lib/sysctl.d/10-a.conf", forward+"=0"), file("etc/sysctl.d/90-b.conf", forward+" = 1")), "settings", forward, OK, "1"},
		"a file that another of its name hides":     {both(file("usr/lib/sysctl.d/10-a.conf", forward+"=0"), file("etc/sysctl.d/10-a.conf", "")), "settings", forward, OK, "1"},
		"settings that cannot be changed":           {both(off, file("proc/self/mounts", "proc /proc proc rw 0 0\nproc /proc/sys proc ro 0 0")), "settings", forward, Fail, "read-only"},
		"few watchers of files":                     {set("fs/inotify/max_user_instances", "128"), "settings", "fs.inotify.max_user_instances", Warn, "/etc/sysctl.d/90-skiff.conf"},
		"a table of connections that is full":       {set("net/netfilter/nf_conntrack_count", "250000"), "settings", "net.netfilter.nf_conntrack_max", Fail, "1048576"},
		"a small table of connections":              {set("net/netfilter/nf_conntrack_max", "16384"), "settings", "net.netfilter.nf_conntrack_max", Warn, "262144"},
		"outgoing connections on node ports":        {set("net/ipv4/ip_local_port_range", "1024\t65000"), "settings", "net.ipv4.ip_local_port_range", Warn, "32768 65000"},
		"memory that is never promised twice":       {set("vm/overcommit_memory", "2"), "settings", "vm.overcommit_memory", Fail, "vm.overcommit_memory = 1"},
		"a machine that panics for a pod":           {set("vm/panic_on_oom", "2"), "settings", "vm.panic_on_oom", Warn, "whole machine"},
		"strict paths on a machine of one network":  {set("net/ipv4/conf/all/rp_filter", "1"), "settings", "rp_filter", OK, "only network"},
		"strict paths on a machine of two networks": {both(set("net/ipv4/conf/all/rp_filter", "1"), twoCards), "settings", "rp_filter", Warn, "several networks"},
		"loose paths on a machine of two networks":  {both(set("net/ipv4/conf/all/rp_filter", "2"), set("net/ipv4/conf/eth0/rp_filter", "1"), twoCards), "settings", "rp_filter", OK, "loose"},
	})
}

// twoCards gives the machine what Vagrant does: a NAT card, and one for its network.
func twoCards(f *fake) {
	f.host.links = func() ([]link, error) {
		return []link{linkOf("lo", "127.0.0.1/8"), linkOf("eth0", "192.168.56.11/24"), linkOf("eth1", "198.51.100.7/24")}, nil
	}
}

func TestTheSpeedOfTheStoresDisk(t *testing.T) {
	t.Parallel()
	speed := func(typical, worst time.Duration, times int) func(*fake) {
		return func(f *fake) {
			f.host.syncs = replay(append(repeat(typical, 100-times), repeat(worst, times)...))
		}
	}
	const disk = "store disk speed"
	expectAll(t, map[string]symptom{
		"a good disk":                      {speed(time.Millisecond, 2*time.Millisecond, 5), "disk", disk, OK, "2ms for 99 of 100"},
		"a good disk that hiccups once":    {speed(time.Millisecond, time.Second, 1), "disk", disk, OK, "1ms"},
		"a disk that is slow now and then": {speed(time.Millisecond, 50*time.Millisecond, 5), "disk", disk, Warn, "50ms"},
		"a disk that is no place for it":   {speed(100*time.Millisecond, 300*time.Millisecond, 5), "disk", disk, Fail, "no steady leader"},
	})
}
