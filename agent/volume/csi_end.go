package volume

import (
	"context"
	"path/filepath"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// unpublish hides a volume from a pod again.
func (m *Manager) unpublish(ctx context.Context, r *record) error {
	target := r.CSI.Target
	if m.CSI != nil {
		driver, err := m.CSI.Driver(r.CSI.Driver)
		if err != nil {
			return err
		}
		call, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		if err := driver.Unpublish(call, r.CSI.Handle, target); err != nil {
			return err
		}
	}
	if err := m.unmount(target); err != nil {
		return err
	}
	if err := removeDir(target); err != nil {
		return err
	}
	return removeDir(filepath.Dir(target))
}

// unstageCSI lets the driver forget the volume on this node.
func (m *Manager) unstageCSI(ctx context.Context, r *record) error {
	if m.CSI != nil {
		driver, err := m.CSI.Driver(r.CSI.Driver)
		if err != nil {
			return err
		}
		call, cancel := context.WithTimeout(ctx, callLimit)
		defer cancel()
		if err := driver.Unstage(call, r.CSI.Handle, r.Staged); err != nil {
			return err
		}
	}
	if err := m.unmount(r.Staged); err != nil {
		return err
	}
	if err := removeDir(r.Staged); err != nil {
		return err
	}
	if r.Block {
		return nil
	}
	return removeDir(filepath.Dir(r.Staged))
}

// VolumesInUse names the volumes of drivers that pods of this node have, as the Node's
// status does.
func (m *Manager) VolumesInUse() []v1.UniqueVolumeName {
	pods, err := m.Pods()
	if err != nil {
		return nil
	}
	seen := map[v1.UniqueVolumeName]bool{}
	for _, uid := range pods {
		m.eachCSI(uid, func(r *record) {
			if r.PersistentVolume != "" {
				seen[v1.UniqueVolumeName("kubernetes.io/csi/"+r.CSI.Driver+"^"+r.CSI.Handle)] = true
			}
		})
	}
	var names []v1.UniqueVolumeName
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (m *Manager) eachCSI(uid types.UID, see func(*record)) {
	records, err := m.records(uid)
	if err != nil {
		return
	}
	for i := range records {
		if records[i].CSI != nil {
			see(&records[i])
		}
	}
}
