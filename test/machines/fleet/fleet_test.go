package fleet

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAFleetOfTwo boots machines, pulls a plug, reboots, and takes them down.
func TestAFleetOfTwo(t *testing.T) {
	Require(t)
	ctx := context.Background()
	before := computer(t)
	folder := Claim(t, "two")
	f, err := Boot(ctx, folder, Nspawn{}, 2)
	if err != nil {
		t.Fatal(err)
	}
	must := func(said string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(said)
	}
	first, second := f.Machines[0], f.Machines[1]
	if name := must(first.Run(ctx, "hostname")); name != "m1" {
		t.Errorf("m1 calls itself %s", name)
	}
	must(first.Run(ctx, "ping -c 1 -W 2 m2"))
	must(first.Run(ctx, "apt-get update -qq && apt-get install -y -qq jq >/dev/null 2>&1 && jq --version"))
	must(first.Run(ctx, "mkdir /sys/fs/cgroup/memory/mine && echo $$ >/sys/fs/cgroup/memory/mine/cgroup.procs && grep -q memory:/mine /proc/self/cgroup"))
	if theirs := must(second.Run(ctx, "ls -d /sys/fs/cgroup/memory/mine || true")); theirs != "" {
		t.Error("a machine sees another's cgroups")
	}

	note := filepath.Join(t.TempDir(), "note")
	if err := os.WriteFile(note, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := first.Copy(ctx, note, "/root/note"); err != nil {
		t.Fatal(err)
	}
	if err := first.PowerOff(); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Run(ctx, "true"); err == nil {
		t.Error("a machine without power answers")
	}
	if err := first.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := first.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	if said := must(first.Run(ctx, "cat /root/note")); said != "kept" {
		t.Errorf("the note says %q", said)
	}
	must(second.Run(ctx, "ping -c 1 -W 2 m1"))

	packages, err := filepath.Glob(filepath.Join(f.Folder, "www/debian/jq_*.deb"))
	if err != nil || len(packages) == 0 {
		t.Fatalf("no package to publish: %v", err)
	}
	if err := f.Publish(ctx, packages...); err != nil {
		t.Fatal(err)
	}
	must(second.Run(ctx, "echo '"+f.AptSource()+"' >/etc/apt/sources.list && apt-get update -qq && apt-get download -qq jq && ls jq_*.deb"))

	if err := f.Down(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Logf("left behind:\n%s\nbefore:\n%s", computer(t), before)
		}
	}()
	if computer(t) != before {
		t.Error("the fleet left something behind")
	}
}

// computer is what a fleet of this test's name could leave on this computer.
func computer(t *testing.T) string {
	t.Helper()
	said, err := exec.Command("sh", "-c", `for each in /run/netns /run/systemd/nspawn/propagate; do ls "$each" 2>/dev/null | grep -- '`+Prefix+`two'; done
grep -- '/`+Prefix+`two' /proc/mounts
find /sys/fs/cgroup -maxdepth 2 -name '`+Prefix+`two*'
losetup -a | grep -- '`+Prefix+`two'
ps -eo args | grep -- '`+Prefix+`two' | grep -v '^sh -c\|^grep'
true`).CombinedOutput()
	if err != nil {
		t.Fatalf("look at this computer: %v\n%s", err, said)
	}
	return string(said)
}
