package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// markName is the file which says how far the log once reached.
const markName = "high-water"

const (
	markMagic    = 0x534b4857 // "SKHW"
	markSlotSize = 32
	// markSyncDelay is how long a moved mark may stay in the page cache.
	markSyncDelay = 5 * time.Second
)

// mark is the high-water mark: the last index that was durable in the log.
// raft-wal stops its recovery at the first frame it cannot read and drops the
// rest as a torn write; the mark tells a torn write, which was never
// acknowledged, from damage.
//
// It is moved after each append by writing one of two slots in turn. That write
// is not synced at once, so it costs no disk latency and survives the death of
// the process; against loss of power it is synced a few seconds later. Before
// the log is cut at its end, the mark is lowered and synced.
type mark struct {
	fs FS

	mu    sync.Mutex // guards all below
	f     File
	turn  uint64
	index uint64
	timer *time.Timer
	dirty bool
	err   error // of a delayed sync
}

// openMark opens the mark of the log in dir, making it if the log is new.
func openMark(fs FS, dir string, isNew bool) (*mark, error) {
	path := filepath.Join(dir, markName)
	flags := os.O_RDWR
	if isNew {
		flags |= os.O_CREATE
	}
	f, err := fs.OpenFile(path, flags)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &DamageError{Path: path, Detail: "it is missing although the log exists"}
	}
	if err != nil {
		return nil, fmt.Errorf("open high-water mark: %w", err)
	}
	m := &mark{fs: fs, f: f}
	if err := m.read(isNew); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return m, nil
}

func (m *mark) read(isNew bool) error {
	var slots [2 * markSlotSize]byte
	n, err := m.f.ReadAt(slots[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read high-water mark: %w", err)
	}
	found := false
	for i := range 2 {
		slot := slots[i*markSlotSize:][:markSlotSize]
		turn, index, ok := decodeMark(slot)
		if ok && (!found || turn > m.turn) {
			m.turn, m.index, found = turn, index, true
		}
	}
	if found {
		return nil
	}
	if n > 0 && !isNew {
		return &DamageError{Path: m.f.Name(), Detail: "neither of its two slots has a matching checksum"}
	}
	if err := m.write(0); err != nil {
		return err
	}
	return errors.Join(m.f.Sync(), m.fs.SyncDir(filepath.Dir(m.f.Name())))
}

func decodeMark(slot []byte) (turn, index uint64, ok bool) {
	if binary.LittleEndian.Uint32(slot) != markMagic {
		return 0, 0, false
	}
	if binary.LittleEndian.Uint32(slot[4:]) != crc32.Checksum(slot[8:], castagnoli) {
		return 0, 0, false
	}
	return binary.LittleEndian.Uint64(slot[8:]), binary.LittleEndian.Uint64(slot[16:]), true
}

// write puts the index into the older slot. The caller holds mu or is alone.
func (m *mark) write(index uint64) error {
	m.turn++
	m.index = index
	var slot [markSlotSize]byte
	binary.LittleEndian.PutUint32(slot[:], markMagic)
	binary.LittleEndian.PutUint64(slot[8:], m.turn)
	binary.LittleEndian.PutUint64(slot[16:], index)
	binary.LittleEndian.PutUint32(slot[4:], crc32.Checksum(slot[8:], castagnoli))
	if _, err := m.f.WriteAt(slot[:], int64(m.turn%2)*markSlotSize); err != nil {
		return fmt.Errorf("write high-water mark: %w", err)
	}
	return nil
}

// Raise notes that the log is durable up to index.
func (m *mark) Raise(index uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	if err := m.write(index); err != nil {
		return err
	}
	if !m.dirty {
		m.dirty = true
		if m.timer == nil {
			m.timer = time.AfterFunc(markSyncDelay, m.syncLater)
		} else {
			m.timer.Reset(markSyncDelay)
		}
	}
	return nil
}

func (m *mark) syncLater() {
	m.mu.Lock()
	f, dirty := m.f, m.dirty
	m.dirty = false
	m.mu.Unlock()
	if !dirty || f == nil {
		return
	}
	err := f.Sync() // not under mu: appends must not wait for it
	if err != nil && !errors.Is(err, os.ErrClosed) {
		m.mu.Lock()
		m.err = fmt.Errorf("sync high-water mark: %w", err)
		m.mu.Unlock()
	}
}

// Lower notes, durably, that the log is about to end at index.
func (m *mark) Lower(index uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if index >= m.index {
		return nil
	}
	if err := m.write(index); err != nil {
		return err
	}
	if err := m.f.Sync(); err != nil {
		return fmt.Errorf("sync high-water mark: %w", err)
	}
	return nil
}

// Index is where the mark stands.
func (m *mark) Index() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.index
}

// Close syncs and closes the mark.
func (m *mark) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.f == nil {
		return nil
	}
	if m.timer != nil {
		m.timer.Stop()
	}
	err := errors.Join(m.f.Sync(), m.f.Close())
	m.f, m.dirty = nil, false
	return err
}
