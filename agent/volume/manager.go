package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	mount "k8s.io/mount-utils"

	"github.com/skiff-run/skiff/agent/downward"
)

// Objects reads config maps and secrets.
type Objects interface {
	ConfigMap(namespace, name string) (*v1.ConfigMap, error)
	Secret(namespace, name string) (*v1.Secret, error)
}

// Tokens makes service account tokens.
type Tokens interface {
	Token(ctx context.Context, pod *v1.Pod, audience string, seconds *int64) (token string, expires time.Time, err error)
}

// TrustBundles reads the authorities that projected volumes ask for.
type TrustBundles interface {
	TrustBundle(ctx context.Context, pod types.UID, source *v1.ClusterTrustBundleProjection) ([]byte, error)
	Forget(pod types.UID)
}

// Config of a Manager.
type Config struct {
	// RootDir holds pods/, /var/lib/kubelet on a usual node.
	RootDir string
	Objects Objects
	Tokens  Tokens
	// Claims is nil where there is no API: claims are refused then.
	Claims Claims
	// CSI is nil where no driver can register: what one mounted is unmounted without it.
	CSI CSI
	// ImageMounts is nil where there is no runtime.
	ImageMounts ImageMounts
	// TrustBundles is nil where there is no API.
	TrustBundles TrustBundles
	Mounter      mount.Interface
	// MemoryCapacity bounds memory volumes without a limit of their own, in bytes.
	MemoryCapacity int64
	Now            func() time.Time
	// Changed is called when VolumesInUse may be others; nil is fine.
	Changed func()
}

// Manager makes and removes volumes. Calls for different pods may run at the
// same time; calls for one pod must not.
type Manager struct {
	Config
	locks locks
}

// New returns a manager.
func New(c Config) *Manager { return &Manager{Config: c} }

// Node is what downward API volumes need to know of pod and node.
type Node struct {
	Addresses   downward.Addresses
	Allocatable v1.ResourceList
}

// kind is one volume type.
type kind struct {
	// dir is the type's name on disk; empty for volumes that live elsewhere.
	dir     string
	matches func(*v1.Volume) bool
	// setUp makes the volume or brings its content up to date. It returns when
	// it has to be called again, or the zero time.
	setUp func(ctx context.Context, r *request) (time.Time, error)
}

// kinds lists every supported volume type.
func kinds() []kind {
	return []kind{emptyDirKind(), configMapKind(), secretKind(), downwardKind(), projectedKind(), hostPathKind(), claimKind(), csiKind(), imageKind()}
}

func kindOf(v *v1.Volume) (kind, bool) {
	for _, k := range kinds() {
		if k.matches(v) {
			return k, true
		}
	}
	return kind{}, false
}

// request is one volume of one pod being set up.
type request struct {
	*Manager
	pod    *v1.Pod
	volume *v1.Volume
	node   Node
	// path of the volume on this node.
	path string
}

// PodDir is the pod's directory.
func (m *Manager) PodDir(uid types.UID) string {
	return filepath.Join(m.RootDir, "pods", string(uid))
}

// Path returns where a volume of the pod is on this node.
func (m *Manager) Path(pod *v1.Pod, name string) (string, bool) {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Name != name {
			continue
		}
		k, ok := kindOf(v)
		if !ok {
			return "", false
		}
		if k.dir == "" && v.HostPath == nil {
			// Where it is was found when it was set up.
			r, err := m.recordOf(pod.UID, name)
			if err != nil || r == nil || r.Path == "" || r.Block {
				return "", false
			}
			return r.Path, true
		}
		return m.path(pod, v, k), true
	}
	return "", false
}

func (m *Manager) path(pod *v1.Pod, v *v1.Volume, k kind) string {
	if v.HostPath != nil {
		return v.HostPath.Path
	}
	return filepath.Join(m.PodDir(pod.UID), "volumes", k.dir, v.Name)
}

// SetUp makes all volumes of the pod, or updates their content. again is when
// it has to be called next even though nothing happened, zero for never.
func (m *Manager) SetUp(ctx context.Context, pod *v1.Pod, node Node) (again time.Time, err error) {
	for _, dir := range []string{m.PodDir(pod.UID), filepath.Join(m.PodDir(pod.UID), "volumes"), filepath.Join(m.PodDir(pod.UID), "plugins")} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return time.Time{}, fmt.Errorf("make the pod's directories: %w", err)
		}
	}
	var errs []error
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		next, err := m.setUpOne(ctx, pod, v, node)
		if err != nil {
			errs = append(errs, &Error{Volume: v.Name, Err: err})
		}
		if !next.IsZero() && (again.IsZero() || next.Before(again)) {
			again = next
		}
	}
	return again, errors.Join(errs...)
}

func (m *Manager) setUpOne(ctx context.Context, pod *v1.Pod, v *v1.Volume, node Node) (time.Time, error) {
	k, ok := kindOf(v)
	if !ok {
		return time.Time{}, fmt.Errorf("no volume plugin matched")
	}
	return k.setUp(ctx, &request{Manager: m, pod: pod, volume: v, node: node, path: m.path(pod, v, k)})
}

// Error is a volume that could not be made; its text is the message of the
// FailedMount event.
type Error struct {
	Volume string
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", e.Volume, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// TearDown unmounts and removes all volumes of a pod. The rest of the pod's
// directory stays until Remove.
func (m *Manager) TearDown(uid types.UID) error {
	dir := m.PodDir(uid)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if m.TrustBundles != nil {
		m.TrustBundles.Forget(uid)
	}
	// Mounts of parts of volumes go before the volumes.
	if err := m.unmountBelow(filepath.Join(dir, "volume-subpaths")); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), releaseLimit)
	defer cancel()
	if err := m.release(ctx, uid); err != nil {
		return err
	}
	if err := m.unmountBelow(dir); err != nil {
		return err
	}
	if err := m.refuseMounts(dir); err != nil {
		return err
	}
	for _, sub := range []string{"volume-subpaths", "volumes"} {
		if err := os.RemoveAll(filepath.Join(dir, sub)); err != nil {
			return fmt.Errorf("remove the volumes of pod %s: %w", uid, err)
		}
	}
	return nil
}

// releaseLimit bounds how long the runtime and drivers may take to let go of a pod's
// volumes before that is tried again.
const releaseLimit = 2 * time.Minute

// Remove tears down and removes everything of a pod.
func (m *Manager) Remove(uid types.UID) error {
	if err := m.TearDown(uid); err != nil {
		return err
	}
	if err := os.RemoveAll(m.PodDir(uid)); err != nil {
		return fmt.Errorf("remove the directory of pod %s: %w", uid, err)
	}
	return nil
}

// Pods lists the pods that have a directory.
func (m *Manager) Pods() ([]types.UID, error) {
	entries, err := os.ReadDir(filepath.Join(m.RootDir, "pods"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pod directories: %w", err)
	}
	var uids []types.UID
	for _, e := range entries {
		if e.IsDir() {
			uids = append(uids, types.UID(e.Name()))
		}
	}
	return uids, nil
}

// unmountBelow unmounts everything mounted in dir, innermost first. It must
// never leave a mount in place and let a removal walk into it.
func (m *Manager) unmountBelow(dir string) error {
	// The kernel lists mounts by the path without links.
	dir, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("resolve the pod's directory: %w", err)
	}
	points, err := m.Mounter.List()
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	var errs []error
	for i := len(points) - 1; i >= 0; i-- {
		// The kernel appends this mark when the mounted directory was unlinked.
		at := strings.TrimSuffix(points[i].Path, "\\040(deleted)")
		if at == dir || strings.HasPrefix(at, dir+"/") {
			if err := m.Mounter.Unmount(at); err != nil {
				errs = append(errs, fmt.Errorf("unmount %s: %w", at, err))
			}
		}
	}
	return errors.Join(errs...)
}

// optional reports whether an error is a missing object that may be missing.
func optional(flag *bool, err error) bool {
	return flag != nil && *flag && apierrors.IsNotFound(err)
}
