package raftstore

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skiff-run/skiff/raftstore/internal/faultfs"
	"github.com/skiff-run/skiff/raftstore/internal/inject"
)

// TestSteadyWritesCostNoMoreWithTime: half an hour of virtual time under load.
// Memory, log and files of all members stay what they were after the first
// minutes, and all compact alike. It is not parallel: it looks at the heap.
func TestSteadyWritesCostNoMoreWithTime(t *testing.T) {
	const (
		minutes    = 30
		perSecond  = 20
		historyAge = time.Minute
		trailing   = 300
		snapshots  = 1000
	)
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, hub: newHub(), members: map[string]*Store{}, dirs: map[string]string{}, options: Options{
			HistoryAge: historyAge, SnapshotEntries: snapshots, TrailingEntries: trailing, SegmentSize: 64 << 10,
		}}
		disks := map[string]*faultfs.Disk{}
		for i, id := range []string{"a", "b", "c"} {
			disks[id] = faultfs.New()
			c.open(id, addressOf(id), i > 0, func(o *Options) { o.Inject = &inject.Parts{FS: disks[id].Mount()} })
			if i > 0 {
				c.add(id)
			}
		}
		var early uint64
		for minute := range minutes {
			for i := range 60 * perSecond {
				key := fmt.Sprintf("/registry/leases/%d", i%300)
				mustPut(t, c.members["b"], key, fmt.Sprintf("%0400d", i), AnyRevision)
				time.Sleep(time.Second / perSecond)
			}
			heap := heapInUse()
			if minute == 4 {
				early = heap
			}
			if minute > 4 && heap > early+early/4+(4<<20) {
				t.Errorf("minute %d: the heap has grown from %d to %d bytes", minute, early, heap)
			}
			for id, s := range c.members {
				first, last, err := s.wal.Bounds()
				// The log reaches back to the older of two snapshots.
				if bound := uint64(3*snapshots + trailing); err != nil || last-first > bound {
					t.Errorf("minute %d: the log of %s holds %d to %d, %v", minute, id, first, last, err)
				}
				if n, most := s.Status().HistoryEvents, int64(perSecond*(historyAge+historyAge/samplesPerAge+5*time.Second)/time.Second); n > most {
					t.Errorf("minute %d: %s keeps %d events, at most %d are young enough", minute, id, n, most)
				}
				if files := disks[id].Files("."); len(files) > 60 {
					t.Errorf("minute %d: %s has %d files", minute, id, len(files))
				}
			}
		}
		c.agree()
		synctest.Wait()
		for id, s := range c.members {
			if got, want := s.CompactRevision(), c.members["a"].CompactRevision(); got != want || got == 0 {
				t.Errorf("%s compacted up to %d, a up to %d", id, got, want)
			}
			if ids, err := s.snapshots.IDs(); err != nil || len(ids) != snapshotsKept {
				t.Errorf("%s has snapshots %v, %v", id, ids, err)
			}
		}
		t.Logf("%d writes, heap %d bytes after 5 minutes and %d at the end", minutes*60*perSecond, early, heapInUse())
		for _, id := range []string{"b", "c", "a"} {
			c.stop(id)
		}
	})
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestHistoryBeyondItsSizeIsCompactedOnAllMembers: by number and by bytes, by
// the leader, through the log.
func TestHistoryBeyondItsSizeIsCompactedOnAllMembers(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"number": {HistoryEvents: 100, HistoryAge: time.Hour},
		"bytes":  {HistoryBytes: 50_000, HistoryAge: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, o, "a", "b", "c")
			c.write(c.follower(), "k", 400)
			c.agree()
			for id, s := range c.members {
				c.eventually(id+" is within its bounds", func() bool {
					v := s.state.View()
					return !s.keeper.overfull(v) && v.CompactRevision() > 0
				})
			}
			// A new leader goes on.
			if err := c.leader().TransferLeadership(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			before := c.members["a"].CompactRevision()
			c.write(c.leader(), "k", 400)
			for id, s := range c.members {
				c.eventually(id+" compacts under the new leader", func() bool {
					v := s.state.View()
					return !s.keeper.overfull(v) && v.CompactRevision() > before
				})
			}
		})
	}
}

// BenchmarkWriteDuringSnapshot writes to three members which hold 100,000
// objects, without and with a snapshot being taken on all of them all the time,
// and a snapshot file being saved.
func BenchmarkWriteDuringSnapshot(b *testing.B) {
	joined, members := newHub(), map[string]*Store{}
	for i, id := range []string{"a", "b", "c"} {
		o := Options{Dir: b.TempDir(), MemberID: id, Address: addressOf(id), Join: i > 0, Network: joined.port(addressOf(id)), SnapshotEntries: 1 << 40, SnapshotBytes: 1 << 40}
		members[id] = openStore(b, o)
		if i > 0 {
			if err := members["a"].AddMember(b.Context(), id, addressOf(id)); err != nil {
				b.Fatal(err)
			}
		}
	}
	leader := members["a"]
	var filling sync.WaitGroup
	for w := range 64 {
		filling.Go(func() {
			for i := w; i < 100_000; i += 64 {
				mustPut(b, leader, fmt.Sprintf("/registry/pods/ns%d/p%d", i%100, i), string(make([]byte, 512)), AnyRevision)
			}
		})
	}
	filling.Wait()
	for _, busy := range []bool{false, true} {
		b.Run(fmt.Sprintf("snapshots=%v", busy), func(b *testing.B) {
			stop, taken := make(chan struct{}), 0
			var taking sync.WaitGroup
			if busy {
				taking.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						for _, s := range members {
							if err := s.archivist.snapshot(); err != nil {
								b.Error(err)
							}
							taken++
						}
						var file bytes.Buffer
						if _, err := leader.SaveSnapshot(b.Context(), &file); err != nil {
							b.Error(err)
						}
					}
				})
			}
			took := make([]time.Duration, 0, b.N)
			for i := range b.N {
				began := time.Now()
				mustPut(b, leader, fmt.Sprintf("/registry/pods/ns%d/p%d", i%100, i), string(make([]byte, 512)), AnyRevision)
				took = append(took, time.Since(began))
			}
			close(stop)
			taking.Wait()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-µs")
			b.ReportMetric(float64(taken), "snapshots")
		})
	}
}
