// Package housekeeping finds what is left on the node of pods that are gone:
// sandboxes, containers, directories, cgroups and links to logs.
//
// What the runtime still holds is handed to the pod workers, which stop and
// purge it in order; the rest is removed here.
package housekeeping

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

const every = 5 * time.Minute

// Runtime lists what it holds.
type Runtime interface {
	ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error)
	ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
}

// Pods knows the pods of this node and adopts those nobody knows.
type Pods interface {
	Known(uid types.UID) bool
	Adopt(uid types.UID, namespace, name string)
}

// Volumes lists and removes pod directories.
type Volumes interface {
	Pods() ([]types.UID, error)
	Remove(uid types.UID) error
}

// Cgroups lists and removes pod cgroups.
type Cgroups interface {
	Pods() ([]types.UID, error)
	RemovePod(ctx context.Context, uid types.UID) error
}

// Keeper looks for remains.
type Keeper struct {
	Runtime          Runtime
	Pods             Pods
	Volumes          Volumes
	Cgroups          Cgroups
	PodLogsDir       string
	ContainerLogsDir string
	Logger           *slog.Logger
}

// Run looks at once and then now and then until ctx ends. It must not be
// started before the pods of this node are known.
func (k *Keeper) Run(ctx context.Context) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if err := k.Sweep(ctx); err != nil && ctx.Err() == nil {
			k.Logger.Warn("clean up after pods that are gone", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Sweep looks once.
func (k *Keeper) Sweep(ctx context.Context) error {
	sandboxes, err := k.Runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return fmt.Errorf("list sandboxes: %w", err)
	}
	containers, err := k.Runtime.ListContainers(ctx, nil)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	held := map[types.UID]bool{}
	adopt := func(labels map[string]string) {
		uid := types.UID(labels[kubelettypes.KubernetesPodUIDLabel])
		if uid == "" {
			return
		}
		held[uid] = true
		if !k.Pods.Known(uid) {
			k.Logger.Info("the API knows no such pod; removing it", "pod", labels[kubelettypes.KubernetesPodNameLabel], "namespace", labels[kubelettypes.KubernetesPodNamespaceLabel], "uid", uid)
			k.Pods.Adopt(uid, labels[kubelettypes.KubernetesPodNamespaceLabel], labels[kubelettypes.KubernetesPodNameLabel])
		}
	}
	for _, s := range sandboxes {
		adopt(s.GetLabels())
	}
	for _, c := range containers {
		adopt(c.GetLabels())
	}
	return errors.Join(k.directories(held), k.cgroups(ctx, held), k.logs(held), k.links())
}

func (k *Keeper) directories(held map[types.UID]bool) error {
	uids, err := k.Volumes.Pods()
	errs := []error{err}
	for _, uid := range uids {
		if !held[uid] && !k.Pods.Known(uid) {
			errs = append(errs, k.Volumes.Remove(uid))
		}
	}
	return errors.Join(errs...)
}

func (k *Keeper) cgroups(ctx context.Context, held map[types.UID]bool) error {
	uids, err := k.Cgroups.Pods()
	errs := []error{err}
	for _, uid := range uids {
		if !held[uid] && !k.Pods.Known(uid) {
			errs = append(errs, k.Cgroups.RemovePod(ctx, uid))
		}
	}
	return errors.Join(errs...)
}

// logs removes the log directories of pods nobody knows: namespace_name_uid.
func (k *Keeper) logs(held map[types.UID]bool) error {
	entries, err := os.ReadDir(k.PodLogsDir)
	if err != nil {
		return fmt.Errorf("list pod logs: %w", err)
	}
	var errs []error
	for _, e := range entries {
		parts := strings.Split(e.Name(), "_")
		uid := types.UID(parts[len(parts)-1])
		if len(parts) == 3 && !held[uid] && !k.Pods.Known(uid) {
			errs = append(errs, os.RemoveAll(filepath.Join(k.PodLogsDir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// links removes links to logs that are gone.
func (k *Keeper) links() error {
	entries, err := os.ReadDir(k.ContainerLogsDir)
	if err != nil {
		return fmt.Errorf("list links to logs: %w", err)
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(k.ContainerLogsDir, e.Name())
		if target, err := os.Readlink(path); err == nil && strings.HasPrefix(target, k.PodLogsDir) {
			if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
				errs = append(errs, os.Remove(path))
			}
		}
	}
	return errors.Join(errs...)
}
