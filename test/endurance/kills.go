package endurance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// killer kills programs of a node one after the other until its context ends.
type killer struct {
	*node
	random *rand.Rand
	// spared are parts of containers' IDs whose shims are left alone.
	spared map[string]bool
	// kills counts what was killed, by name.
	kills map[string]*atomic.Int64
}

// victims are what may be killed, and how often compared with each other.
var victims = []string{"skiff-agent", "skiff-agent", "skiff-agent", "containerd", "containerd", "shim", "shim", "shim", "agent and containerd"}

func newKiller(n *node, seed uint64, spared map[string]bool) *killer {
	k := &killer{node: n, random: rand.New(rand.NewPCG(seed, 1)), spared: spared, kills: map[string]*atomic.Int64{}}
	for _, victim := range victims {
		k.kills[victim] = new(atomic.Int64)
	}
	return k
}

// run kills until ctx ends. It leaves pauses of all sizes: a kill during the
// recovery from another is the point, and so is one in the middle of a start.
func (k *killer) run(ctx context.Context) error {
	for {
		pause := time.Duration(200+k.random.IntN(4000)) * time.Millisecond
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		victim := victims[k.random.IntN(len(victims))]
		killed, err := k.kill(victim)
		if err != nil {
			return err
		}
		if killed {
			k.kills[victim].Add(1)
		}
	}
}

func (k *killer) kill(victim string) (bool, error) {
	switch victim {
	case "shim":
		return k.killShim()
	case "agent and containerd":
		a, err := k.Signal("skiff-agent", unix.SIGKILL)
		if err != nil {
			return false, err
		}
		c, err := k.Signal("containerd", unix.SIGKILL)
		return a+c > 0, err
	default:
		count, err := k.Signal(victim, unix.SIGKILL)
		return count > 0, err
	}
}

// killShim kills the shim of any pod that is not spared.
func (k *killer) killShim() (bool, error) {
	pids, err := k.Processes("containerd-shim-runc-v2")
	if err != nil {
		return false, err
	}
	for _, i := range k.random.Perm(len(pids)) {
		line, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pids[i]), "cmdline"))
		if err != nil {
			continue // ended meanwhile
		}
		if k.spares(string(line), pids[i]) {
			continue
		}
		if err := unix.Kill(pids[i], unix.SIGKILL); err != nil {
			if err == unix.ESRCH {
				continue
			}
			return false, fmt.Errorf("kill shim %d: %w", pids[i], err)
		}
		return true, nil
	}
	return false, nil
}

// spares says whether a shim serves a container that is to be left alone. A
// shim's arguments name the first container it was started for.
func (k *killer) spares(arguments string, pid int) bool {
	for id := range k.spared {
		if strings.Contains(arguments, id) {
			return true
		}
	}
	children, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return true
	}
	for _, file := range children {
		list, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for child := range strings.FieldsSeq(string(list)) {
			cgroups, err := os.ReadFile("/proc/" + child + "/cgroup")
			if err != nil {
				continue
			}
			for id := range k.spared {
				if strings.Contains(string(cgroups), id) {
					return true
				}
			}
		}
	}
	return false
}
