package check

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/operator"
)

// replay is a disk whose writes take what it says.
func replay(took []time.Duration) func(context.Context, string, time.Duration) ([]time.Duration, error) {
	return func(context.Context, string, time.Duration) ([]time.Duration, error) { return took, nil }
}

func TestDisk(t *testing.T) {
	t.Parallel()
	has := func(s space) func(*fake) {
		return func(f *fake) { f.host.space = func(string) (space, error) { return s, nil } }
	}
	mounted := func(line string) func(*fake) {
		return func(f *fake) {
			f.write("var/lib/skiff/control/x", "")
			f.write("proc/self/mounts", "/dev/vda1 / ext4 rw 0 0\n"+line)
		}
	}
	const gib = 1 << 30
	expectAll(t, map[string]symptom{
		"room enough":                 {func(*fake) {}, "disk", "store space", OK, "50.0 GiB free of 100 GiB at /"},
		"little room for the store":   {has(space{size: 10 * gib, free: gib}), "disk", "store space", Warn, "1.0 GiB free"},
		"no room for the store":       {has(space{size: 10 * gib, free: gib / 10}), "disk", "store space", Fail, "du -xh"},
		"no files left for the store": {has(space{size: 10 * gib, free: 5 * gib, inodes: 1000000, freeInodes: 10}), "disk", "store space", Fail, "10 inodes"},
		"a disk that is read-only":    {has(space{size: 10 * gib, free: 5 * gib, readOnly: true}), "disk", "store space", Fail, "remount,rw"},
		"a store in memory":           {mounted("tmpfs /var/lib/skiff tmpfs rw 0 0"), "disk", "store file system", Fail, "gone after a reboot"},
		"a store on a network":        {mounted("fs:/x /var/lib/skiff/control nfs4 rw 0 0"), "disk", "store file system", Warn, "local disk"},
		"a mount that hides another":  {mounted("tmpfs /var/lib/skiff tmpfs rw 0 0\n/dev/vdb /var/lib/skiff xfs rw 0 0"), "disk", "store file system", OK, "xfs at /var/lib/skiff"},
		"a worker whose disk is full": {func(f *fake) { f.machine.role = operator.Worker; has(space{size: 100 * gib, free: 5 * gib})(f) }, "disk", "pods' volumes space", Fail, "evicted"},
		"a worker whose inodes are used up": {func(f *fake) {
			f.machine.role = operator.Worker
			has(space{size: 100 * gib, free: 50 * gib, inodes: 1000, freeInodes: 10})(f)
		}, "disk", "pods' volumes space", Fail, "10 of 1000 inodes"},
	})
}

func TestMeasuringADiskLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	took, err := measureSyncs(t.Context(), folder, 200*time.Millisecond)
	if err != nil || len(took) == 0 {
		t.Fatalf("measured %v, %v", took, err)
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
