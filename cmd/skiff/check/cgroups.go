package check

import (
	"context"
	"slices"
	"strings"
)

// controllers that pods cannot do without, and those that some pods want.
var (
	neededControllers = []string{"cpu", "memory", "pids"}
	wantedControllers = []string{"cpuset", "io"}
)

// cgroupTree is what is mounted at /sys/fs/cgroup.
type cgroupTree struct {
	unified, hybrid bool
	controllers     []string
}

func (h *host) cgroupTree() cgroupTree {
	var t cgroupTree
	for _, m := range h.mounts() {
		switch {
		case m.fileSystem == "cgroup2" && m.point == "/sys/fs/cgroup":
			t.unified = true
			t.controllers = strings.Fields(h.text("sys/fs/cgroup/cgroup.controllers"))
		case m.fileSystem == "cgroup2":
			t.hybrid = true
		case m.fileSystem == "cgroup":
			for _, option := range m.options {
				if option == "blkio" {
					option = "io" // its name in v2
				}
				if slices.Contains(neededControllers, option) || slices.Contains(wantedControllers, option) || option == "freezer" || option == "devices" {
					t.controllers = append(t.controllers, option)
				}
			}
		}
	}
	return t
}

// memoryCgroup says whether memory can be limited.
func (h *host) memoryCgroup() bool { return slices.Contains(h.cgroupTree().controllers, "memory") }

func checkCgroups(_ context.Context, e *examination) {
	t := e.cgroupTree()
	needed := neededControllers
	switch {
	case t.unified:
		e.ok("version", "v2")
	case len(t.controllers) == 0:
		e.fail("version", "no cgroup file system at /sys/fs/cgroup: no container starts", "mount -t cgroup2 cgroup2 /sys/fs/cgroup")
		return
	case t.hybrid:
		e.ok("version", "v1 with an empty v2 beside it; works, though limits of swap and memory.high need v2")
	default:
		e.ok("version", "v1; works, though limits of swap and memory.high need v2")
	}
	if !t.unified {
		needed = append(slices.Clone(needed), "freezer", "devices")
	}
	lacking := func(names []string) []string {
		return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(t.controllers, n) })
	}
	if missing := lacking(needed); len(missing) > 0 {
		remedy := []string{"apt-get install linux-image-amd64 && reboot"}
		if slices.Contains(missing, "memory") {
			remedy = []string{e.bootRemedy("cgroup_enable=memory"), "reboot"}
		}
		e.fail("controllers", "missing: "+strings.Join(missing, ", ")+"; pods cannot be limited", remedy...)
	} else if missing := lacking(wantedControllers); len(missing) > 0 {
		e.warn("controllers", strings.Join(t.controllers, ", ")+"; missing: "+strings.Join(missing, ", ")+", which limits of disks or exclusive cores need")
	} else {
		e.ok("controllers", "%s", strings.Join(t.controllers, ", "))
	}
	e.cgroupDriver(t)
}

// cgroupDriver says who makes the pods' groups.
func (e *examination) cgroupDriver(t cgroupTree) {
	switch driver := e.agent.CgroupDriver; {
	case driver == "systemd" && !e.systemd():
		e.fail("driver", "agent.yaml says cgroupDriver: systemd, but systemd is not PID 1 here", "sed -i 's/^cgroupDriver:.*/cgroupDriver: auto/' "+e.UserConfig("agent"))
	case driver == "cgroupfs" && e.systemd() && t.unified:
		e.warn("driver", "agent.yaml says cgroupDriver: cgroupfs, beside which systemd changes the pods' groups at every daemon-reload", "sed -i 's/^cgroupDriver:.*/cgroupDriver: auto/' "+e.UserConfig("agent"))
	case driver == "auto" && e.systemd(), driver == "systemd":
		e.ok("driver", "systemd")
	default:
		e.ok("driver", "cgroupfs")
	}
	for _, m := range e.mounts() {
		if (m.fileSystem == "cgroup" || m.fileSystem == "cgroup2") && strings.HasPrefix(m.point, "/sys/fs/cgroup") && slices.Contains(m.options, "ro") {
			e.fail("writable", m.point+" is mounted read-only, as in a container: no pod can be limited", "mount -o remount,rw "+m.point)
			return
		}
	}
}
