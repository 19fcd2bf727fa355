package disk_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore/disk"
	"github.com/skiff-run/skiff/raftstore/internal/faultfs"
)

// machine is a log on a machine whose power fails, and what it must still know.
type machine struct {
	disk   *faultfs.Disk
	log    *disk.Log
	fatal  error
	record map[uint64][]byte // acknowledged or attempted
	acked  uint64            // the last acknowledged record
	least  uint64            // the first record that may exist
	term   uint64            // acknowledged
}

func (m *machine) open() error {
	m.fatal = nil
	guard := disk.NewGuard(func(err error) { m.fatal = err }, func(error) {}, time.Hour)
	var err error
	m.log, err = disk.OpenLog(m.disk.Mount(), "/store/log", 8<<10, guard, hclog.NewNullLogger())
	return err
}

// verify checks that nothing acknowledged is missing or different.
func (m *machine) verify() error {
	first, last, err := m.log.Bounds()
	if err != nil {
		return err
	}
	if last < m.acked || first > m.least && m.acked > 0 {
		return fmt.Errorf("log has records %d to %d, acknowledged were %d to %d", first, last, m.least, m.acked)
	}
	for i := first; i <= last && last > 0; i++ {
		var got raft.Log
		if err := m.log.GetLog(i, &got); err != nil {
			return err
		}
		if !bytes.Equal(got.Data, m.record[i]) {
			return fmt.Errorf("record %d of %d to %d is not what was written", i, first, last)
		}
	}
	if term, err := m.log.Stable().GetUint64([]byte("CurrentTerm")); err != nil || term != m.term {
		return fmt.Errorf("term %d, acknowledged was %d: %w", term, m.term, err)
	}
	return nil
}

// work appends, cuts and sets the term until the power fails at one of them.
func (m *machine) work(r *rand.Rand) error {
	_, last, err := m.log.Bounds()
	if err != nil {
		return err
	}
	m.acked = last // what was found after a start is durable
	for range r.IntN(60) {
		var entries []*raft.Log
		for range 1 + r.IntN(6) {
			last++
			data := make([]byte, r.IntN(900))
			for i := range data {
				data[i] = byte(1 + r.IntN(255))
			}
			m.record[last] = data
			entries = append(entries, &raft.Log{Index: last, Term: 1, Data: data})
		}
		if err := m.log.StoreLogs(entries); err != nil {
			return err
		}
		m.acked = last
		switch r.IntN(20) {
		case 0:
			to := m.least + uint64(r.IntN(int(last-m.least)+1))
			if to < last {
				if err := m.log.DeleteRange(m.least, to); err != nil {
					return err
				}
				m.least = to + 1
			}
		case 1: // raft cuts what conflicts with its leader's log
			from := last - uint64(r.IntN(int(last-m.least)+1))
			if from > m.least {
				m.acked = from - 1
				if err := m.log.DeleteRange(from, last); err != nil {
					return err
				}
				last = from - 1
			}
		case 2:
			m.term++
			if err := m.log.Stable().SetUint64([]byte("CurrentTerm"), m.term); err != nil {
				return err
			}
		}
	}
	// A last batch is on its way when the power fails: written, not synced.
	if r.IntN(2) == 0 {
		m.disk.FailNextSync()
		var entries []*raft.Log
		for range 1 + r.IntN(6) {
			last++
			m.record[last] = bytes.Repeat([]byte{7}, r.IntN(900))
			entries = append(entries, &raft.Log{Index: last, Term: 1, Data: m.record[last]})
		}
		if err := m.log.StoreLogs(entries); err == nil || m.fatal == nil {
			return fmt.Errorf("a failed sync went unnoticed: %v, fatal %v", err, m.fatal)
		}
	}
	return nil
}

// TestPowerLossLosesNothingAcknowledged cuts the power of a working log again
// and again: unsynced writes are lost, kept or torn, and so are names.
func TestPowerLossLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	for seed := range uint64(25) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := &machine{disk: faultfs.New(), record: map[uint64][]byte{}, least: 1}
		for round := range 25 {
			if err := m.open(); err != nil {
				t.Fatalf("seed %d, round %d: %v", seed, round, err)
			}
			if err := m.verify(); err != nil {
				t.Fatalf("seed %d, round %d: %v", seed, round, err)
			}
			if err := m.work(r); err != nil {
				t.Fatalf("seed %d, round %d: %v", seed, round, err)
			}
			if r.IntN(4) == 0 {
				m.disk.Kill()
			} else {
				m.disk.PowerLoss(r)
			}
			_ = m.log.Close() // of a dead process, so that its goroutines end
		}
	}
}

// TestLostSyncsAreNoticed: the same machine with a disk that lies about syncing
// its log must fail, or the test above proves nothing.
func TestLostSyncsAreNoticed(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := &machine{disk: faultfs.New(), record: map[uint64][]byte{}, least: 1}
		m.disk.SetLying(true, ".wal")
		for range 25 {
			err := m.open()
			if err == nil {
				err = m.verify()
			}
			if err != nil {
				return
			}
			_ = m.work(r)
			m.disk.PowerLoss(r)
			_ = m.log.Close()
		}
	}
	t.Error("a disk that never syncs lost nothing")
}
