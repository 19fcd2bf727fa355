package disk

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hashicorp/raft-wal/types"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// metaName is the file with the list of log segments, the term and the vote.
const metaName = "meta"

const metaMagic = "skiff-log-meta-1\n"

// meta is raft-wal's MetaStore on one small file that is replaced atomically
// and carries a checksum. (raft-wal's own is a bbolt file, which notices no
// damage in its values, cannot write two of them at once through raft-wal's
// interface, and keeps a memory map for a few hundred bytes.)
type meta struct {
	fs      FS
	mu      sync.Mutex // guards everything below; held while writing
	path    string
	content metaContent
	loaded  bool
}

type metaContent struct {
	State  types.PersistentState `json:"state"`
	Stable map[string][]byte     `json:"stable"`
}

// Load implements types.MetaStore.
func (m *meta) Load(dir string) (types.PersistentState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.loaded {
		m.path = filepath.Join(dir, metaName)
		content, err := readMeta(m.fs, m.path)
		if err != nil {
			return types.PersistentState{}, err
		}
		m.content, m.loaded = content, true
	}
	state := m.content.State
	// raft-wal 0.4.1 records its own codec's number for every new segment,
	// whatever codec is in use, and then refuses to open the log again.
	state.Segments = append([]types.SegmentInfo(nil), state.Segments...)
	for i := range state.Segments {
		state.Segments[i].Codec = codecID
	}
	return state, nil
}

func readMeta(fs FS, path string) (metaContent, error) {
	content := metaContent{Stable: map[string][]byte{}}
	raw, err := ReadFile(fs, path)
	if errors.Is(err, os.ErrNotExist) {
		names, err := fs.ReadDir(filepath.Dir(path))
		if err != nil {
			return content, fmt.Errorf("read log directory: %w", err)
		}
		return content, missingMeta(path, names)
	}
	if err != nil {
		return content, fmt.Errorf("read log metadata: %w", err)
	}
	body, ok := bytes.CutPrefix(raw, []byte(metaMagic))
	if !ok || len(body) < 4 {
		return content, &DamageError{Path: path, Detail: "it does not begin like log metadata"}
	}
	sum := binary.LittleEndian.Uint32(body)
	if crc32.Checksum(body[4:], castagnoli) != sum {
		return content, &DamageError{Path: path, Detail: "its checksum does not match"}
	}
	if err := json.Unmarshal(body[4:], &content); err != nil {
		return content, &DamageError{Path: path, Detail: "it cannot be decoded", Err: err}
	}
	if content.Stable == nil {
		content.Stable = map[string][]byte{}
	}
	return content, nil
}

// missingMeta tells a new log from one which lost its metadata: raft-wal
// would take the second for the first and delete its segments.
func missingMeta(path string, names []string) error {
	for _, name := range names {
		if strings.HasSuffix(name, ".wal") {
			return &DamageError{Path: path, Detail: fmt.Sprintf("it is missing although segment %s exists", name)}
		}
	}
	return nil
}

// write replaces the file with changed content and keeps it only on success.
func (m *meta) write(changed metaContent) error {
	body, err := json.Marshal(changed)
	if err != nil {
		return fmt.Errorf("encode log metadata: %w", err)
	}
	raw := append([]byte(metaMagic), 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(raw[len(metaMagic):], crc32.Checksum(body, castagnoli))
	if err := WriteFile(m.fs, m.path, append(raw, body...)); err != nil {
		return fmt.Errorf("write log metadata: %w", err)
	}
	m.content = changed
	return nil
}

// CommitState implements types.MetaStore.
func (m *meta) CommitState(state types.PersistentState) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed := m.content
	changed.State = state
	return m.write(changed)
}

// GetStable implements types.MetaStore.
func (m *meta) GetStable(key []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.content.Stable[string(key)], nil
}

// SetStable implements types.MetaStore.
func (m *meta) SetStable(key, value []byte) error {
	return m.SetAll(map[string][]byte{string(key): value})
}

// SetAll writes several stable values in one atomic step.
func (m *meta) SetAll(values map[string][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed := m.content
	changed.Stable = maps.Clone(m.content.Stable)
	for key, value := range values {
		changed.Stable[key] = append([]byte(nil), value...)
	}
	return m.write(changed)
}

// Close implements types.MetaStore. There is nothing open between writes.
func (m *meta) Close() error { return nil }
