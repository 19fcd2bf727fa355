package check

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// capability of root that a machine inside another one may lack.
type capability struct {
	name    string
	bit     int
	without string
	fatal   bool
}

var capabilities = []capability{
	{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN, "no container starts", true},
	{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, "pods and services have no network", true},
	{"CAP_SYS_RESOURCE", unix.CAP_SYS_RESOURCE, "pods of the class Guaranteed are no safer from the kernel's out-of-memory killer than others, and limits of open files cannot be raised", false},
	{"CAP_MKNOD", unix.CAP_MKNOD, "containers have no devices", true},
	{"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE, "kubectl exec into pods of other users may fail", false},
}

func checkSecurity(_ context.Context, e *examination) {
	e.capabilities()
	e.appArmor()
	e.seLinux()
}

// capabilities looks at what root may do here at all: the bounding set.
func (e *examination) capabilities() {
	var bounding uint64
	known := false
	for _, line := range e.lines("proc/self/status") {
		if text, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
			bounding, known = n, err == nil
		}
	}
	if !known {
		return
	}
	complete := true
	for _, c := range capabilities {
		if bounding&(1<<c.bit) != 0 {
			continue
		}
		complete = false
		found := fmt.Sprintf("missing, as in a container or a restricted machine: %s", c.without)
		remedy := "# on the machine that this one runs on: systemd-nspawn --capability=all, lxc config set NAME security.privileged=true, docker run --privileged"
		if c.fatal {
			e.fail(c.name, found, remedy)
		} else {
			e.warn(c.name, found, remedy)
		}
	}
	if complete {
		e.ok("capabilities", "root may do what pods need")
	}
}

func (e *examination) appArmor() {
	if !strings.HasPrefix(e.text("sys/module/apparmor/parameters/enabled"), "Y") {
		e.ok("AppArmor", "off")
		return
	}
	if _, err := e.lookPath("apparmor_parser"); err != nil {
		e.warn("AppArmor", "on, but apparmor_parser is missing: containers run without a profile", "apt-get install apparmor")
		return
	}
	e.ok("AppArmor", "on; containers get the runtime's profile")
}

func (e *examination) seLinux() {
	enforcing := e.text("sys/fs/selinux/enforce")
	labels := slices.ContainsFunc(e.mounts(), func(m mount) bool { return m.fileSystem == "selinuxfs" })
	switch {
	case enforcing == "1":
		e.warn("SELinux", "enforcing: containers get no labels, so its policy may keep them from volumes, or let them reach more than it should",
			"setenforce 0 && sed -i 's/^SELINUX=.*/SELINUX=permissive/' /etc/selinux/config")
	case enforcing == "0" || labels:
		e.ok("SELinux", "permissive")
	default:
		e.ok("SELinux", "off")
	}
}
