package images

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// Usage is what all snapshots take on the disk.
type Usage struct {
	At     time.Time
	Bytes  uint64
	Inodes uint64
}

// usageAge is how long a figure is good enough: measuring walks file systems.
const usageAge = 10 * time.Second

// DiskUsage measures the snapshotter's use of the disk. Committed layers never change and are measured once.
type DiskUsage struct {
	Snapshots snapshots.Snapshotter

	mu        sync.Mutex // guards what follows, and lets one measure at a time
	last      Usage
	committed map[string]snapshots.Usage
}

// Get returns a figure that is at most a few seconds old.
func (d *DiskUsage) Get(ctx context.Context) (Usage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.last.At) < usageAge {
		return d.last, nil
	}
	total := Usage{At: time.Now()}
	committed := map[string]snapshots.Usage{}
	err := d.Snapshots.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		usage, known := d.committed[info.Name]
		if !known || info.Kind != snapshots.KindCommitted {
			var err error
			if usage, err = d.Snapshots.Usage(ctx, info.Name); err != nil {
				if errdefs.IsNotFound(err) {
					return nil // removed while we walked
				}
				return err
			}
		}
		if info.Kind == snapshots.KindCommitted {
			committed[info.Name] = usage
		}
		total.Bytes += uint64(usage.Size)
		total.Inodes += uint64(usage.Inodes)
		return nil
	})
	if err != nil {
		return Usage{}, fmt.Errorf("measure snapshots: %w", err)
	}
	d.last, d.committed = total, committed
	return total, nil
}

// Root asks containerd where its snapshotter keeps the layers.
func (s *Store) Root(ctx context.Context) string {
	answer, err := s.options.Client.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1")
	if err == nil {
		for _, p := range answer.Plugins {
			if root := p.Exports["root"]; p.ID == s.options.Snapshotter && root != "" {
				return root
			}
		}
	}
	return filepath.Join("/var/lib/containerd", "io.containerd.snapshotter.v1."+s.options.Snapshotter)
}
