package proof

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/skiff-run/skiff/test/machines/fleet"
)

// classes are a pod of each class of service, all on one machine.
const classes = `
apiVersion: v1
kind: Pod
metadata: {name: guaranteed}
spec:
  nodeName: %[1]s
  terminationGracePeriodSeconds: 1
  securityContext: {seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: box
    image: busybox:1.36
    command: [sleep, "100000"]
    resources: {limits: {cpu: 500m, memory: 64Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: burstable}
spec:
  nodeName: %[1]s
  terminationGracePeriodSeconds: 1
  containers:
  - name: box
    image: busybox:1.36
    command: [sleep, "100000"]
    resources: {requests: {cpu: 100m, memory: 16Mi}, limits: {memory: 96Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: besteffort}
spec:
  nodeName: %[1]s
  terminationGracePeriodSeconds: 1
  containers: [{name: box, image: "busybox:1.36", command: [sleep, "100000"]}]
`

// testCgroups looks at pods of each class where systemd owns the only tree of
// cgroups: slices of systemd's, with the pods' limits in the kernel's files; and
// at what seccomp and AppArmor do to them.
func testCgroups(t *testing.T, f *fleet.Fleet) {
	m := f.Machines[0]
	if kind := on(t, m, "stat -fc %T /sys/fs/cgroup"); kind != "cgroup2fs" {
		t.Fatalf("the machine's cgroups are of %s", kind)
	}
	apply(t, f, fmt.Sprintf(classes, m.Name))
	names := []string{"pod/guaranteed", "pod/burstable", "pod/besteffort"}
	defer kubectl(t, f, append([]string{"delete", "--now", "--ignore-not-found"}, names...)...)
	kubectl(t, f, append([]string{"wait", "--for=condition=Ready", "--timeout=240s"}, names...)...)
	if enabled := on(t, m, "command -v apparmor_parser >/dev/null && cat /sys/module/apparmor/parameters/enabled || true"); enabled != "Y" {
		t.Errorf("the machine is to have AppArmor, which says %q", enabled)
	}
	for name, want := range map[string]struct {
		slice, parent, memory, cpu, weight string
		seccomp                            int
	}{
		"guaranteed": {"kubepods-pod", "kubepods.slice", "67108864", "50000 100000", "59", 2},
		"burstable":  {"kubepods-burstable-pod", "kubepods.slice/kubepods-burstable.slice", "100663296", "max 100000", "17", 0},
		"besteffort": {"kubepods-besteffort-pod", "kubepods.slice/kubepods-besteffort.slice", "max", "max 100000", "1", 0},
	} {
		t.Run(name, func(t *testing.T) {
			uid := kubectl(t, f, "get", "pod", name, "-o", "jsonpath={.metadata.uid}")
			slice := want.slice + strings.ReplaceAll(uid, "-", "_") + ".slice"
			folder := "/sys/fs/cgroup/" + want.parent + "/" + slice
			said := on(t, m, fmt.Sprintf("systemctl show -P ActiveState %s; cd %s && cat memory.max cpu.max cpu.weight", slice, folder))
			if got, want := said, strings.Join([]string{"active", want.memory, want.cpu, want.weight}, "\n"); got != want {
				t.Errorf("%s says\n%s\nwant\n%s", slice, got, want)
			}
			if got := on(t, m, "find "+folder+" -name cgroup.procs -exec cat {} + | wc -l"); got == "0" {
				t.Errorf("no process is in %s", slice)
			}
			inside := kubectl(t, f, "exec", name, "--", "sh", "-c", "grep Seccomp: /proc/self/status; cat /sys/fs/cgroup/memory.max; cat /proc/self/attr/current 2>/dev/null")
			lines := strings.Split(strings.TrimSpace(inside), "\n")
			if len(lines) < 2 || lines[0] != "Seccomp:\t"+strconv.Itoa(want.seccomp) || lines[1] != want.memory {
				t.Errorf("the container sees:\n%s\nwant seccomp %d and %s bytes", inside, want.seccomp, want.memory)
			}
			if !strings.HasSuffix(strings.TrimSpace(inside), "(enforce)") {
				t.Errorf("no profile of AppArmor is enforced; the container sees:\n%s", inside)
			}
		})
	}
}

// exposed is what systemd-analyze security says in its last line.
var exposed = regexp.MustCompile(`Overall exposure level for (\S+): ([0-9.]+)`)

// testHardening looks at the daemons as systemd runs them: their users, how far
// they are exposed, and that nothing they need is kept from them.
func testHardening(t *testing.T, f *fleet.Fleet) {
	for unit, most := range map[string]float64{"skiff-control": 1.3, "skiff-proxy": 2.6, "skiff-agent": 6.8} {
		said := on(t, f.Machines[0], "systemd-analyze security --no-pager "+unit+" | tail -1")
		found := exposed.FindStringSubmatch(said)
		if found == nil {
			t.Errorf("systemd-analyze security %s says %q", unit, said)
			continue
		}
		level, err := strconv.ParseFloat(found[2], 64)
		if err != nil || level > most {
			t.Errorf("%s is exposed by %s, at most %.1f is wanted", unit, found[2], most)
		}
		t.Logf("%s: exposure %s", unit, found[2])
	}
	for _, m := range f.Machines {
		for unit, user := range map[string]string{"skiff-control": "skiff-control", "skiff-proxy": "root", "skiff-agent": "root"} {
			said := on(t, m, "systemctl show -P ActiveState "+unit+"; systemctl show -P NRestarts "+unit+"; ps -o user:20= -p $(systemctl show -P MainPID "+unit+")")
			if got := strings.Fields(said); strings.Join(got, " ") != "active 0 "+user {
				t.Errorf("%s on %s: %s, want active, restarted 0 times, by %s", unit, m.Name, got, user)
			}
		}
		// A system call or a file that is refused is a mistake of the unit.
		refused := on(t, m, `journalctl --no-pager -o cat -k -g 'type=1326|apparmor="DENIED".*skiff' | head; journalctl --no-pager -o short -u 'skiff-*' -g 'operation not permitted|permission denied|read-only file system' | head`)
		refused = strings.TrimSpace(strings.ReplaceAll(refused, "-- No entries --", ""))
		if refused != "" {
			t.Errorf("on %s something is refused:\n%s", m.Name, refused)
		}
	}
}
