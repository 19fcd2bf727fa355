package image

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/agent/event"
)

// checkEvery is how often the disk is looked at.
const checkEvery = 5 * time.Minute

// Policy says when images nobody uses are removed.
type Policy struct {
	// High and Low are percentages: when the disk is fuller than High, images are
	// removed until it is at Low. A High of 100 never is.
	High, Low int
	// MinimumAge is how long an image must have been here.
	MinimumAge time.Duration
	// MaximumAge is how long an image may be unused, whatever the disk; 0 for ever.
	MaximumAge time.Duration
}

// Store is what the collector needs of the runtime.
type Store interface {
	ListImages(ctx context.Context, filter *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error)
	RemoveImage(ctx context.Context, image *runtimeapi.ImageSpec) error
	ImageFsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error)
	ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
}

// Collector removes images nobody uses when the disk fills up.
type Collector struct {
	store  Store
	events event.Recorder
	node   runtime.Object
	logger *slog.Logger
	// records of who pulled images, which images outlive; may be nil.
	records *Records
	// began is when the collector did: nothing is known of earlier uses.
	began time.Time
	// reclaim lets one remove images at a time.
	reclaim sync.Mutex
	// policy; reclaim guards it.
	policy Policy
	// seen is when an image was first noticed, used when it was last in use; reclaim guards them.
	seen, used map[string]time.Time
}

// NewCollector returns a collector; node is what its events are about.
func NewCollector(store Store, policy Policy, records *Records, events event.Recorder, node runtime.Object, logger *slog.Logger) *Collector {
	return &Collector{
		store: store, policy: policy, records: records, events: events, node: node, logger: logger, began: time.Now(), seen: map[string]time.Time{}, used: map[string]time.Time{},
	}
}

// SetPolicy changes the policy from the next check on.
func (c *Collector) SetPolicy(policy Policy) {
	c.reclaim.Lock()
	defer c.reclaim.Unlock()
	c.policy = policy
}

// Run checks the disk now and then until ctx ends.
func (c *Collector) Run(ctx context.Context) {
	ticker := time.NewTicker(checkEvery)
	defer ticker.Stop()
	for {
		if err := c.check(ctx, time.Now()); err != nil && ctx.Err() == nil {
			c.logger.Warn("collect images", "error", err)
			c.events.Eventf(c.node, v1.EventTypeWarning, event.ImageGCFailed, "%v", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (c *Collector) check(ctx context.Context, now time.Time) error {
	c.reclaim.Lock()
	defer c.reclaim.Unlock()
	images, err := c.store.ListImages(ctx, nil)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	containers, err := c.store.ListContainers(ctx, nil)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	c.notice(images, containers, now)
	if c.records != nil {
		present := map[string]bool{}
		for _, image := range images {
			present[image.GetId()] = true
		}
		c.records.Prune(present, now)
	}
	images = c.removeOld(ctx, images, now)
	if c.policy.High >= 100 {
		return nil
	}
	info, err := c.store.ImageFsInfo(ctx)
	if err != nil {
		return fmt.Errorf("find the disk of the images: %w", err)
	}
	if len(info.GetImageFilesystems()) == 0 {
		return nil
	}
	var disk unix.Statfs_t
	mountpoint := info.GetImageFilesystems()[0].GetFsId().GetMountpoint()
	if err := unix.Statfs(mountpoint, &disk); err != nil {
		return fmt.Errorf("size of the file system of %s: %w", mountpoint, err)
	}
	capacity, available := disk.Blocks*uint64(disk.Bsize), disk.Bavail*uint64(disk.Bsize)
	wanted := Excess(capacity, available, c.policy)
	if wanted == 0 {
		return nil
	}
	freed := uint64(0)
	for _, image := range c.unused(images, now) {
		if freed >= wanted {
			break
		}
		if err := c.store.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: image.GetId()}); err != nil {
			c.logger.Warn("remove an image", "image", image.GetId(), "error", err)
			continue
		}
		c.logger.Info("image removed, the disk is filling up", "image", image.GetId(), "bytes", image.GetSize())
		freed += image.GetSize()
	}
	if freed < wanted {
		c.events.Eventf(c.node, v1.EventTypeWarning, event.FreeDiskSpaceFailed,
			"Failed to garbage collect required amount of images. Attempted to free %d bytes, but only found %d bytes eligible to free.", wanted, freed)
	}
	return nil
}

// removeOld removes what was not used for too long and returns the rest.
func (c *Collector) removeOld(ctx context.Context, images []*runtimeapi.Image, now time.Time) []*runtimeapi.Image {
	if c.policy.MaximumAge <= 0 || now.Sub(c.began) <= c.policy.MaximumAge {
		return images
	}
	old := map[string]bool{}
	for _, image := range c.unused(images, now) {
		id := image.GetId()
		last := c.used[id]
		if last.IsZero() {
			last = c.seen[id]
		}
		if now.Sub(last) <= c.policy.MaximumAge {
			continue
		}
		if err := c.store.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: id}); err != nil {
			c.logger.Warn("remove an image", "image", id, "error", err)
			continue
		}
		c.logger.Info("image removed, it was not used for long", "image", id, "bytes", image.GetSize())
		old[id] = true
	}
	return slices.DeleteFunc(images, func(i *runtimeapi.Image) bool { return old[i.GetId()] })
}

// Excess is how many bytes have to be freed; 0 below the high threshold.
func Excess(capacity, available uint64, p Policy) uint64 {
	if capacity == 0 || 100-available*100/capacity < uint64(p.High) {
		return 0
	}
	goal := capacity / 100 * (100 - uint64(p.Low))
	if goal <= available {
		return 0
	}
	return goal - available
}

func (c *Collector) notice(images []*runtimeapi.Image, containers []*runtimeapi.Container, now time.Time) {
	present := map[string]bool{}
	for _, image := range images {
		present[image.GetId()] = true
		if _, known := c.seen[image.GetId()]; !known {
			c.seen[image.GetId()] = now
		}
		for _, container := range containers {
			if container.GetImageId() == image.GetId() || container.GetImageRef() == image.GetId() || container.GetImage().GetImage() == image.GetId() || slices.Contains(image.GetRepoDigests(), container.GetImageRef()) {
				c.used[image.GetId()] = now
			}
		}
	}
	for id := range c.seen {
		if !present[id] {
			delete(c.seen, id)
			delete(c.used, id)
		}
	}
}

// unused images, the longest unused first.
func (c *Collector) unused(images []*runtimeapi.Image, now time.Time) []*runtimeapi.Image {
	var free []*runtimeapi.Image
	for _, image := range images {
		id := image.GetId()
		if image.GetPinned() || c.used[id].Equal(now) || now.Sub(c.seen[id]) < c.policy.MinimumAge {
			continue
		}
		free = append(free, image)
	}
	slices.SortStableFunc(free, func(a, b *runtimeapi.Image) int {
		return cmp.Or(c.used[a.GetId()].Compare(c.used[b.GetId()]), c.seen[a.GetId()].Compare(c.seen[b.GetId()]))
	})
	return free
}
