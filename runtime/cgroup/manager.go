package cgroup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// Drivers.
const (
	DriverAuto     = "auto"
	DriverCgroupfs = "cgroupfs"
	DriverSystemd  = "systemd"
)

const mountPoint = "/sys/fs/cgroup"

// Options configures a Manager.
type Options struct {
	// Root is the cgroup below which kubepods is made. Several nodes of a test share one machine by different roots.
	Root string
	// Driver is auto, cgroupfs or systemd. auto is systemd where systemd is PID 1.
	Driver string
	// Logger receives the decisions.
	Logger *slog.Logger
}

// Manager makes, changes and removes cgroups. Its methods may be called from many goroutines.
type Manager struct {
	root    string // cgroupfs syntax, "" for the top
	driver  string
	tree    tree
	systemd *systemd
	logger  *slog.Logger
}

// New finds the cgroup version and the driver. It changes nothing yet.
func New(o Options) (*Manager, error) {
	m := &Manager{driver: o.Driver, logger: o.Logger}
	if m.logger == nil {
		m.logger = slog.Default()
	}
	m.root = strings.Trim(path.Clean("/"+o.Root), "/")
	var err error
	if m.tree, err = mountedTree(); err != nil {
		return nil, err
	}
	switch o.Driver {
	case "", DriverAuto:
		m.driver = DriverCgroupfs
		if _, err := os.Stat("/run/systemd/system"); err == nil {
			m.driver = DriverSystemd
		}
	case DriverCgroupfs, DriverSystemd:
	default:
		return nil, fmt.Errorf("cgroup driver %q: must be auto, cgroupfs or systemd", o.Driver)
	}
	if m.driver == DriverSystemd {
		m.systemd = &systemd{unified: m.tree.unified()}
	}
	return m, nil
}

func mountedTree() (tree, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(mountPoint, &fs); err != nil {
		return nil, fmt.Errorf("look at %s: %w; mount the cgroup filesystem there", mountPoint, err)
	}
	if fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return treeV2{}, nil
	}
	v1 := treeV1{}
	entries, err := os.ReadDir(mountPoint)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		dir := filepath.Join(mountPoint, e.Name())
		if err := unix.Statfs(dir, &fs); err != nil {
			continue
		}
		if fs.Type == unix.CGROUP2_SUPER_MAGIC {
			// The hybrid layout: without controllers, but the OCI runtime makes cgroups there too.
			v1[hybrid] = dir
			continue
		}
		if fs.Type != unix.CGROUP_SUPER_MAGIC {
			continue
		}
		for name := range strings.SplitSeq(e.Name(), ",") {
			v1[name] = dir
		}
	}
	if _, ok := v1["memory"]; !ok {
		return nil, errors.New("no memory controller below " + mountPoint + ": mount cgroup v2 there, or the v1 controllers below it")
	}
	return v1, nil
}

// Unified is true on cgroup v2.
func (m *Manager) Unified() bool { return m.tree.unified() }

// Driver is "cgroupfs" or "systemd".
func (m *Manager) Driver() string { return m.driver }

// Close ends the connection to systemd, if there is one.
func (m *Manager) Close() { m.systemd.close() }

// PodParent is the cgroup of a pod in cgroupfs syntax, as
// PodSandboxConfig.Linux.CgroupParent wants it, whatever the driver.
func (m *Manager) PodParent(uid string, qos corev1.PodQOSClass) string {
	return path.Join(m.tier(qos), "pod"+uid)
}

func (m *Manager) tier(qos corev1.PodQOSClass) string {
	top := path.Join("/", m.root, "kubepods")
	switch qos {
	case corev1.PodQOSBurstable:
		return top + "/burstable"
	case corev1.PodQOSBestEffort:
		return top + "/besteffort"
	}
	return top
}

// ContainerPath is what the OCI spec's cgroupsPath says for a container in a pod
// whose parent PodParent returned. An empty parent means the tree's top.
func (m *Manager) ContainerPath(parent, containerID string) string {
	if parent == "" {
		parent = m.tier("")
	}
	if m.driver == DriverSystemd {
		return SliceName(parent) + ":cri-containerd:" + containerID
	}
	return path.Join(parent, containerID)
}

// FilePath is the path below a controller's mount of the container whose OCI cgroupsPath is given.
func (m *Manager) FilePath(cgroupsPath string) string {
	slice, rest, ok := strings.Cut(cgroupsPath, ":")
	if !ok {
		return cgroupsPath
	}
	prefix, name, _ := strings.Cut(rest, ":")
	return path.Join(slicePath(slice), prefix+"-"+name+".scope")
}

// path is where the cgroup of that name in cgroupfs syntax stands below a controller's mount.
func (m *Manager) path(name string) string {
	if m.driver == DriverSystemd {
		return slicePath(SliceName(name))
	}
	return name
}

// SetupRoot makes kubepods, burstable and besteffort; root limits kubepods as a whole.
func (m *Manager) SetupRoot(ctx context.Context, root Resources) error {
	if err := m.set(ctx, m.tier(""), root); err != nil {
		return err
	}
	if err := m.set(ctx, m.tier(corev1.PodQOSBestEffort), Resources{CPUShares: 2}); err != nil {
		return err
	}
	return m.set(ctx, m.tier(corev1.PodQOSBurstable), Resources{})
}

// LimitRoot changes the limits of kubepods as a whole.
func (m *Manager) LimitRoot(ctx context.Context, r Resources) error { return m.set(ctx, m.tier(""), r) }

// LimitExisting changes the limits of a cgroup that somebody else has made, named from the tree's top.
func (m *Manager) LimitExisting(ctx context.Context, name string, r Resources) error {
	name = path.Clean("/" + name)
	if !m.tree.exists(m.path(name)) {
		return fmt.Errorf("there is no cgroup %s", name)
	}
	return m.set(ctx, name, r)
}

// SetQOS changes the limits of the burstable or besteffort tier.
func (m *Manager) SetQOS(ctx context.Context, qos corev1.PodQOSClass, r Resources) error {
	return m.set(ctx, m.tier(qos), r)
}

// SetPod makes the cgroup of a pod or changes its limits.
func (m *Manager) SetPod(ctx context.Context, uid string, qos corev1.PodQOSClass, r Resources) error {
	return m.set(ctx, m.PodParent(uid, qos), r)
}

func (m *Manager) set(ctx context.Context, name string, r Resources) error {
	if m.driver == DriverSystemd {
		if err := m.systemd.set(ctx, SliceName(name), r); err != nil {
			return fmt.Errorf("slice of cgroup %s: %w", name, err)
		}
	}
	if err := m.tree.create(m.path(name)); err != nil {
		return fmt.Errorf("make cgroup %s: %w", name, err)
	}
	if m.driver == DriverSystemd {
		// systemd would overwrite what it knows about; huge pages it does not.
		r = Resources{HugepageLimit: r.HugepageLimit, Unified: r.Unified}
	}
	if err := m.tree.write(m.path(name), r); err != nil {
		return fmt.Errorf("limit cgroup %s: %w", name, err)
	}
	return nil
}

// Pods lists the UIDs of the pods that have a cgroup.
func (m *Manager) Pods() ([]string, error) {
	seen := map[string]bool{}
	var uids []string
	for _, qos := range []corev1.PodQOSClass{corev1.PodQOSGuaranteed, corev1.PodQOSBurstable, corev1.PodQOSBestEffort} {
		names, err := m.tree.children(m.path(m.tier(qos)))
		if err != nil {
			return nil, fmt.Errorf("list cgroups of %s pods: %w", qos, err)
		}
		for _, name := range names {
			if m.driver == DriverSystemd {
				name = strings.TrimSuffix(name[strings.LastIndex(name, "-")+1:], ".slice")
				name = strings.ReplaceAll(name, "_", "-")
			}
			uid, ok := strings.CutPrefix(name, "pod")
			if ok && uid != "" && !seen[uid] {
				seen[uid] = true
				uids = append(uids, uid)
			}
		}
	}
	return uids, nil
}

// RemovePod kills what is left in a pod's cgroup and removes it in every tier. No error if there is none.
func (m *Manager) RemovePod(ctx context.Context, uid string) error {
	for _, qos := range []corev1.PodQOSClass{corev1.PodQOSGuaranteed, corev1.PodQOSBurstable, corev1.PodQOSBestEffort} {
		if err := m.remove(ctx, m.PodParent(uid, qos)); err != nil {
			return err
		}
	}
	return nil
}

// RemoveAll removes the whole tree with everything that runs in it.
func (m *Manager) RemoveAll(ctx context.Context) error {
	uids, err := m.Pods()
	if err != nil {
		return err
	}
	for _, uid := range uids {
		err = errors.Join(err, m.RemovePod(ctx, uid))
	}
	for _, qos := range []corev1.PodQOSClass{corev1.PodQOSBurstable, corev1.PodQOSBestEffort, corev1.PodQOSGuaranteed} {
		err = errors.Join(err, m.remove(ctx, m.tier(qos)))
	}
	if err == nil && m.root != "" && m.driver == DriverCgroupfs {
		m.tree.removeEmpty(m.root)
	}
	return err
}

func (m *Manager) remove(ctx context.Context, name string) error {
	dir := m.path(name)
	if !m.tree.exists(dir) {
		return nil
	}
	if err := m.tree.kill(ctx, dir); err != nil {
		return fmt.Errorf("kill what runs in cgroup %s: %w", name, err)
	}
	if m.driver == DriverSystemd {
		if err := m.systemd.remove(ctx, SliceName(name)); err != nil {
			return fmt.Errorf("slice of cgroup %s: %w", name, err)
		}
	}
	if err := m.tree.remove(ctx, dir); err != nil {
		return fmt.Errorf("remove cgroup %s: %w", name, err)
	}
	return nil
}
