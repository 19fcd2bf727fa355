package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	mount "k8s.io/mount-utils"
	utilexec "k8s.io/utils/exec"
)

// persistent is a PersistentVolume being set up for a pod. The volume is locked.
type persistent struct {
	*request
	pv       *v1.PersistentVolume
	readOnly bool
	// kept is the record of an earlier time, or nil.
	kept *record
}

// hostPath is a path of the node, as it is.
func (p *persistent) hostPath() error {
	if isBlock(p.pv) {
		return fmt.Errorf("hostPath volume %q cannot be a block device: use a local volume", p.pv.Name)
	}
	if err := checkHostPath(p.pv.Spec.HostPath); err != nil {
		return err
	}
	return p.keep(p.pod.UID, &record{Volume: p.volume.Name, PersistentVolume: p.pv.Name, Path: p.pv.Spec.HostPath.Path})
}

// local is a directory or a disk of the node. A disk is given a file system when it
// has none, and mounted once for all pods.
func (p *persistent) local() error {
	source := p.pv.Spec.Local.Path
	info, err := os.Stat(source)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("path %q does not exist", source)
	}
	if err != nil {
		return fmt.Errorf("look at the local volume: %w", err)
	}
	device := info.Mode()&fs.ModeDevice != 0 && info.Mode()&fs.ModeCharDevice == 0
	kept := &record{Volume: p.volume.Name, PersistentVolume: p.pv.Name}
	if isBlock(p.pv) {
		if !device {
			return fmt.Errorf("volumeMode is Block, but %s is not a block device", source)
		}
		kept.Path, kept.Block = source, true
		return p.keep(p.pod.UID, kept)
	}
	target := filepath.Join(p.PodDir(p.pod.UID), "volumes", "kubernetes.io~local-volume", p.pv.Name)
	if device {
		kept.Staged = filepath.Join(p.RootDir, "plugins", "kubernetes.io", "local-volume", "mounts", p.pv.Name)
	} else if !info.IsDir() {
		return fmt.Errorf("local volume %q: %s is neither a directory nor a block device", p.pv.Name, source)
	}
	// Written before anything is mounted, so that whatever was is found again.
	if err := p.keep(p.pod.UID, kept); err != nil {
		return err
	}
	if device {
		if err := p.stageDisk(source, kept.Staged); err != nil {
			return err
		}
		source = kept.Staged
	}
	if err := p.bindMount(source, target); err != nil {
		return err
	}
	if err := p.own(target); err != nil {
		return err
	}
	kept.Path = target
	return p.keep(p.pod.UID, kept)
}

func (p *persistent) stageDisk(device, staged string) error {
	if err := os.MkdirAll(staged, 0o750); err != nil {
		return fmt.Errorf("make the mount point of disk %s: %w", device, err)
	}
	if p.isMounted(staged) {
		return nil
	}
	fsType := "ext4"
	if p.pv.Spec.Local.FSType != nil && *p.pv.Spec.Local.FSType != "" {
		fsType = *p.pv.Spec.Local.FSType
	}
	formatter := &mount.SafeFormatAndMount{Interface: p.Mounter, Exec: utilexec.New()}
	if err := formatter.FormatAndMount(device, staged, fsType, p.pv.Spec.MountOptions); err != nil {
		return fmt.Errorf("mount disk %s: %w", device, err)
	}
	return nil
}

// bindMount shows source at target, which is inside the pod's directory.
func (p *persistent) bindMount(source, target string) error {
	if err := os.MkdirAll(target, 0o750); err != nil {
		return fmt.Errorf("make the volume's directory: %w", err)
	}
	if p.isMounted(target) {
		return nil
	}
	options := []string{"bind"}
	if p.readOnly {
		options = append(options, "ro")
	}
	if p.pv.Spec.Local != nil && len(p.pv.Spec.MountOptions) > 0 {
		options = append(options, p.pv.Spec.MountOptions...)
	}
	if err := p.Mounter.MountSensitiveWithoutSystemd(source, target, "", options, nil); err != nil {
		return fmt.Errorf("mount %s: %w", source, err)
	}
	return nil
}

// own gives the volume to the pod's group, unless another pod has it already.
func (p *persistent) own(dir string) error {
	group := fsGroup(p.pod)
	if group == nil || p.readOnly {
		return nil
	}
	others, err := p.sharers(p.pod.UID, p.pv.Name)
	if err != nil {
		return err
	}
	for _, other := range others {
		if r, err := p.recordFor(other, p.pv.Name); err == nil && r != nil && r.Path != "" {
			return nil
		}
	}
	return setOwnership(dir, group, false, changePolicy(p.pod))
}

// recordFor finds a pod's record by the PersistentVolume.
func (m *Manager) recordFor(uid types.UID, persistentVolume string) (*record, error) {
	all, err := m.records(uid)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].PersistentVolume == persistentVolume {
			return &all[i], nil
		}
	}
	return nil, nil
}

// below reports whether a path is in the agent's own tree.
func (m *Manager) below(path string) bool { return strings.HasPrefix(path, m.RootDir+"/") }
