package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// record is what is kept on disk of a volume that the API has described once: what
// it takes to find it, and to let go of it without the API.
type record struct {
	// Volume is the name in the pod, PersistentVolume that of the volume bound to its
	// claim.
	Volume           string
	PersistentVolume string `json:",omitempty"`
	// CSI is how a driver knows the volume.
	CSI *csiRecord `json:",omitempty"`
	// Image is the runtime's name for the mount of an image.
	Image string `json:",omitempty"`
	// Path is what containers mount, empty until it is known.
	Path string
	// Block: Path is a device.
	Block bool `json:",omitempty"`
	// Staged is the mount that all pods of this node share, if there is one.
	Staged string `json:",omitempty"`
}

// csiRecord is how a driver knows a volume. It holds no secret.
type csiRecord struct {
	Driver, Handle string
	// Published: the driver was asked to show the volume at Target, and may have done it.
	Published bool
	Target    string `json:",omitempty"`
	// Republish: the driver wants to be asked again and again.
	Republish bool `json:",omitempty"`
}

func (m *Manager) recordDir(uid types.UID) string { return filepath.Join(m.PodDir(uid), "claims") }

// records reads what is kept of a pod's volumes.
func (m *Manager) records(uid types.UID) ([]record, error) {
	entries, err := os.ReadDir(m.recordDir(uid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the records of volumes of pod %s: %w", uid, err)
	}
	var all []record
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		r, err := readRecord(filepath.Join(m.recordDir(uid), e.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, *r)
	}
	return all, nil
}

func readRecord(path string) (*record, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &record{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("read the record of a volume %s: %w", path, err)
	}
	return r, nil
}

// recordOf reads one record; nil when there is none.
func (m *Manager) recordOf(uid types.UID, volume string) (*record, error) {
	r, err := readRecord(filepath.Join(m.recordDir(uid), volume+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return r, err
}

// keep writes a record so that a crash leaves the old one or the new one.
func (m *Manager) keep(uid types.UID, r *record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the record of volume %q: %w", r.Volume, err)
	}
	if err := os.MkdirAll(m.recordDir(uid), 0o750); err != nil {
		return fmt.Errorf("make the directory of volume records: %w", err)
	}
	path := filepath.Join(m.recordDir(uid), r.Volume+".json")
	if err := os.WriteFile(path+".tmp", data, 0o600); err != nil {
		return fmt.Errorf("write the record of volume %q: %w", r.Volume, err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("write the record of volume %q: %w", r.Volume, err)
	}
	m.tell(r)
	return nil
}

// tell says that a volume of a driver came or went.
func (m *Manager) tell(r *record) {
	if m.Changed != nil && r.CSI != nil {
		m.Changed()
	}
}

func (m *Manager) drop(uid types.UID, r *record) error {
	err := os.Remove(filepath.Join(m.recordDir(uid), r.Volume+".json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the record of volume %q: %w", r.Volume, err)
	}
	m.tell(r)
	return nil
}

// sharers lists the other pods of this node that have a record of the volume.
func (m *Manager) sharers(uid types.UID, persistentVolume string) ([]types.UID, error) {
	pods, err := m.Pods()
	if err != nil {
		return nil, err
	}
	var found []types.UID
	for _, other := range pods {
		if other == uid {
			continue
		}
		records, err := m.records(other)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(records, func(r record) bool { return r.PersistentVolume == persistentVolume }) {
			found = append(found, other)
		}
	}
	return found, nil
}

// Device returns the device of a block volume of the pod.
func (m *Manager) Device(pod *v1.Pod, name string) (string, bool) {
	r, err := m.recordOf(pod.UID, name)
	if err != nil || r == nil || !r.Block {
		return "", false
	}
	return r.Path, true
}
