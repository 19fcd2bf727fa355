package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	mount "k8s.io/mount-utils"

	"github.com/skiff-run/skiff/agent/volume"
	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/tracking"
	"github.com/skiff-run/skiff/runtime"
)

// Cleanup ends every pod of this node and removes what the agent made:
// containers, mounts, namespaces, links, cgroups, pod directories and logs.
// The agent must not run. It needs no API server and may be repeated.
func Cleanup(ctx context.Context, s *config.Agent, logger *slog.Logger) error {
	options, err := RuntimeOptions(s, logger)
	if err != nil {
		return err
	}
	errs := []error{runtime.Cleanup(ctx, options)}
	volumes := volume.New(volume.Config{RootDir: s.RootDir, Mounter: mount.New(""), Now: time.Now})
	uids, err := volumes.Pods()
	errs = append(errs, err)
	for _, uid := range uids {
		errs = append(errs, volumes.Remove(uid))
	}
	errs = append(errs, removeLinks(s), removeLogs(s), tracking.Off(ctx))
	return errors.Join(errs...)
}

// removeLinks removes the links to logs that lead into the pods' logs.
func removeLinks(s *config.Agent) error {
	return eachEntry(s.ContainerLogsDir, func(path string) error {
		if target, err := os.Readlink(path); err == nil && strings.HasPrefix(target, s.PodLogsDir+"/") {
			return os.Remove(path)
		}
		return nil
	})
}

// removeLogs removes the log directories of pods: namespace_name_uid.
func removeLogs(s *config.Agent) error {
	return eachEntry(s.PodLogsDir, func(path string) error {
		if strings.Count(filepath.Base(path), "_") == 2 {
			return os.RemoveAll(path)
		}
		return nil
	})
}

func eachEntry(dir string, do func(path string) error) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, do(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}
