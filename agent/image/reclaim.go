package image

import (
	"context"
	"errors"
	"fmt"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RemoveUnused removes every image nobody uses, however full the disk is.
func (c *Collector) RemoveUnused(ctx context.Context) error {
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
	now := time.Now()
	c.notice(images, containers, now)
	var errs []error
	for _, image := range c.unused(images, now) {
		if err := c.store.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: image.GetId()}); err != nil {
			errs = append(errs, fmt.Errorf("remove image %s: %w", image.GetId(), err))
			continue
		}
		c.logger.Info("image removed, the machine runs short of disk", "image", image.GetId(), "bytes", image.GetSize())
	}
	return errors.Join(errs...)
}
