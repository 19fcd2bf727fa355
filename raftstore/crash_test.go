package raftstore

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	crashDirVariable = "RAFTSTORE_CRASH_TEST_DIR"
	crashWriters     = 6
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirVariable); dir != "" {
		if err := crashChild(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func crashKey(writer int) string { return fmt.Sprintf("/registry/counters/c%d", writer) }

// crashChild opens the store, says what it holds, and then counts upwards in
// one key per writer, saying each acknowledged step, until it is killed. The
// bounds are so small that snapshots, new segments, cuts of the log and
// compactions happen all the time.
func crashChild(dir string) error {
	s, err := Open(context.Background(), Options{
		Dir: dir, Logger: quiet(), SnapshotEntries: 60, SegmentSize: 8 << 10, HistoryEvents: 200,
		OnFatal: func(err error) { fmt.Println("error fatal:", err); os.Exit(1) },
	})
	if err != nil {
		return err
	}
	line := []string{"open", fmt.Sprint(s.Revision())}
	counters := make([]*KeyValue, crashWriters)
	for i := range counters {
		if counters[i], _, err = s.Get(crashKey(i), 0); err != nil {
			return err
		}
		value := "0"
		if counters[i] != nil {
			value = string(counters[i].Value)
		}
		line = append(line, value)
	}
	if err := historyIsDense(s); err != nil {
		return err
	}
	fmt.Println(strings.Join(line, " "))
	failed := make(chan error)
	for i := range counters {
		go func() { failed <- count(s, i, counters[i]) }()
	}
	return <-failed
}

func count(s *Store, writer int, kv *KeyValue) error {
	for {
		n, expect := 0, int64(0)
		if kv != nil {
			n, _ = strconv.Atoi(string(kv.Value))
			expect = kv.ModRevision
		}
		r, err := s.Put(context.Background(), PutRequest{Key: crashKey(writer), Value: []byte(strconv.Itoa(n + 1)), ExpectModRevision: expect})
		if err != nil {
			return err
		}
		if !r.Succeeded {
			return fmt.Errorf("writer %d at revision %d found %+v", writer, expect, r.KV)
		}
		kv = r.KV
		// One write call: whole in the pipe or not there.
		if _, err := os.Stdout.WriteString(fmt.Sprintf("ack %d %d %d\n", writer, n+1, kv.ModRevision)); err != nil {
			return err
		}
	}
}

// historyIsDense checks that every revision still kept is there and is the
// version its event says.
func historyIsDense(s *Store) error {
	v := s.state.View()
	from := v.Revision() - v.HistoryLen()
	events, progress, err := v.Events(nil, "", from, 1<<20)
	if err != nil || progress != v.Revision() || int64(len(events)) != v.HistoryLen() {
		return fmt.Errorf("history from %d: %d events up to %d of %d: %w", from, len(events), progress, v.Revision(), err)
	}
	for i, e := range events {
		if e.Revision != from+int64(i)+1 || e.KV.ModRevision != e.Revision {
			return fmt.Errorf("event %d of the history from %d is %+v", i, from, e)
		}
	}
	return nil
}

// crashModel is what the parent knows.
type crashModel struct {
	acknowledged [crashWriters]int
	revisions    int64 // the highest acknowledged
	opens, acks  int   // over all stores, to see what the test did
}

// opened checks what a restarted child found: all that was acknowledged, per
// writer at most one more (its last request was perhaps made), and a revision
// which counts exactly the writes that exist.
func (m *crashModel) opened(fields []string) error {
	if len(fields) != crashWriters+1 {
		return fmt.Errorf("child says %v", fields)
	}
	revision, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return err
	}
	sum := int64(0)
	for i := range m.acknowledged {
		n, err := strconv.Atoi(fields[i+1])
		if err != nil {
			return err
		}
		if n < m.acknowledged[i] || n > m.acknowledged[i]+1 {
			return fmt.Errorf("writer %d has %d, acknowledged were %d", i, n, m.acknowledged[i])
		}
		m.acknowledged[i] = n
		sum += int64(n)
	}
	if revision != sum+1 || revision < m.revisions {
		return fmt.Errorf("revision %d, but %d writes were made and revision %d was acknowledged", revision, sum, m.revisions)
	}
	return nil
}

func (m *crashModel) line(line string) error {
	fields := strings.Fields(line)
	switch {
	case len(fields) > 0 && fields[0] == "open":
		m.opens++
		return m.opened(fields[1:])
	case len(fields) == 4 && fields[0] == "ack":
		writer, _ := strconv.Atoi(fields[1])
		n, _ := strconv.Atoi(fields[2])
		revision, _ := strconv.ParseInt(fields[3], 10, 64)
		if n != m.acknowledged[writer]+1 {
			return fmt.Errorf("writer %d acknowledged %d after %d", writer, n, m.acknowledged[writer])
		}
		m.acks++
		m.acknowledged[writer] = n
		m.revisions = max(m.revisions, revision)
		return nil
	}
	return fmt.Errorf("child says %q", line)
}

// TestKillNineLosesNothing kills a writing process at random moments, hundreds
// of times, and checks after each that nothing acknowledged is missing.
func TestKillNineLosesNothing(t *testing.T) {
	t.Parallel()
	rounds := 300
	if testing.Short() {
		rounds = 30
	}
	var m crashModel
	dir := filepath.Join(t.TempDir(), "store")
	r := rand.New(rand.NewPCG(1, uint64(os.Getpid())))
	for round := range rounds {
		if round > 0 && round%50 == 0 { // a new store, killed in its first moments too
			m = crashModel{opens: m.opens, acks: m.acks}
			dir = filepath.Join(t.TempDir(), "store")
		}
		// One round in four may die while it opens, the others while they write.
		if err := crashRound(dir, &m, round%4 == 0, time.Duration(r.IntN(60_000))*time.Microsecond); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	s := openStore(t, Options{Dir: dir})
	if err := historyIsDense(s); err != nil {
		t.Error(err)
	}
	t.Logf("%d kills, %d of them after opening; %d writes acknowledged, last store at revision %d", rounds, m.opens, m.acks, s.Revision())
}

// crashRound runs one child for a while (from its start, or from when it opened
// the store), kills it, and takes in all it said.
func crashRound(dir string, m *crashModel, fromStart bool, life time.Duration) error {
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), crashDirVariable+"="+dir)
	var stderr bytes.Buffer
	child.Stderr = &stderr
	out, err := child.StdoutPipe()
	if err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return err
	}
	kill := time.AfterFunc(time.Hour, func() { _ = child.Process.Kill() })
	defer kill.Stop()
	if fromStart {
		kill.Reset(life)
	}
	lines := bufio.NewReader(out)
	var said error
	for said == nil {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			break // an unfinished line was not said
		}
		if err != nil {
			said = err
			break
		}
		said = m.line(strings.TrimSpace(line))
		if !fromStart && strings.HasPrefix(line, "open") {
			kill.Reset(life)
		}
	}
	_ = child.Process.Kill()
	_ = child.Wait() // it was killed
	if said != nil {
		return fmt.Errorf("%w\n%s", said, stderr.String())
	}
	if stderr.Len() > 0 {
		return fmt.Errorf("child complains: %s", stderr.String())
	}
	return nil
}
