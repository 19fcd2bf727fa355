package devices

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"
)

// saved is the content of the file.
type saved struct {
	Pods map[types.UID]map[string]Grants `json:"pods"`
	// Resources are those of all plugins there were: the node has none of them until they come back.
	Resources []string `json:"resources,omitempty"`
}

func (m *Manager) load() error {
	data, err := os.ReadFile(m.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var s saved
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return fmt.Errorf("read who has which device; remove %s after draining the node: %w", m.File, err)
	}
	if s.Pods != nil {
		m.pods = s.Pods
	}
	for _, name := range s.Resources {
		m.inventory[name] = &inventory{}
	}
	return nil
}

// store is called with mu held. A failure is logged: what is in memory counts until the agent ends.
func (m *Manager) store() {
	s := saved{Pods: m.pods}
	for name := range m.inventory {
		s.Resources = append(s.Resources, name)
	}
	data, err := json.Marshal(s)
	temporary := filepath.Join(filepath.Dir(m.File), "."+filepath.Base(m.File))
	if err == nil {
		err = os.WriteFile(temporary, data, 0o600)
	}
	if err == nil {
		err = os.Rename(temporary, m.File)
	}
	if err != nil {
		m.Logger.Error("keep who has which device", "error", err)
	}
}
