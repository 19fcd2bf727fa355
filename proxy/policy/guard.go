package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// Guard closes the node's ranges of pods if there were policies when the daemon
// ended and the kernel has no rules of it: the machine was started anew, and pods
// must not run open until Run has read the API. Run begins with it; a machine that
// starts does it before pods can.
func (c *Controller) Guard(ctx context.Context) error {
	ranges, err := remembered(c.config.StateFile)
	if err != nil {
		c.config.Logger.Warn("whether there were network policies is not known", "error", err)
	}
	if len(ranges) == 0 {
		return nil
	}
	if there, err := c.kernel.exists(ctx); err != nil || there {
		return err
	}
	if err := c.kernel.Sync(ctx, Guard(ranges, c.config.Delivered)); err != nil {
		return fmt.Errorf("close pods until network policies are read: %w", err)
	}
	c.config.Logger.Info("there were network policies: pods are closed until they are read", "ranges", ranges)
	return nil
}

// remember writes the ranges to the file, or removes it without any. It writes
// nothing while nothing changed.
func remember(file string, ranges []netip.Prefix) error {
	if file == "" {
		return nil
	}
	if len(ranges) == 0 {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget network policies: %w", err)
		}
		return nil
	}
	var text bytes.Buffer
	for _, r := range ranges {
		fmt.Fprintln(&text, r)
	}
	if before, err := os.ReadFile(file); err == nil && bytes.Equal(before, text.Bytes()) {
		return nil
	}
	err := os.MkdirAll(filepath.Dir(file), 0o700)
	if err == nil {
		err = os.WriteFile(file+".new", text.Bytes(), 0o600)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		return fmt.Errorf("remember network policies: %w", err)
	}
	return nil
}

// remembered are the ranges of the file, none when there were no policies.
func remembered(file string) ([]netip.Prefix, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read remembered network policies: %w", err)
	}
	var out []netip.Prefix
	for _, text := range strings.Fields(string(data)) {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return out, fmt.Errorf("remembered network policies in %s: %w", file, err)
		}
		out = append(out, prefix)
	}
	return out, nil
}
