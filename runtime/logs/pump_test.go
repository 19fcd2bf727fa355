package logs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
)

// pipe is a pump and the writing end a shim would have.
type pipe struct {
	t     *testing.T
	dir   string
	pumps Pumps
	pump  *Pump
	w     *os.File
}

func newPipe(t *testing.T, limits Limits) *pipe {
	t.Helper()
	p := &pipe{t: t, dir: t.TempDir()}
	p.open(limits)
	// Both ways, as the shim holds it: what is in the pipe outlives the pump.
	w, err := os.OpenFile(filepath.Join(p.dir, "out"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	p.w = w
	p.pump.Armed()
	t.Cleanup(func() { p.w.Close(); p.pump.Close(); p.pumps.Close() })
	return p
}

func (p *pipe) open(limits Limits) {
	p.t.Helper()
	pump, err := p.pumps.Open(Config{Stdout: filepath.Join(p.dir, "out"), Path: p.path(), Limits: limits})
	if err != nil {
		p.t.Fatal(err)
	}
	p.pump = pump
}

func (p *pipe) path() string { return filepath.Join(p.dir, "log", "0.log") }

func (p *pipe) write(s string) {
	p.t.Helper()
	if _, err := p.w.WriteString(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pipe) log() string {
	p.t.Helper()
	b, err := os.ReadFile(p.path())
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

func (p *pipe) eventually(what string, want func(log string) bool) {
	p.t.Helper()
	testenv.Eventually(p.t, 5*time.Second, func() bool { return want(p.log()) }, "%s; log: %q", what, p.log())
}

func TestLinesAreWrittenWhenTheyAreWhole(t *testing.T) {
	t.Parallel()
	p := newPipe(t, Limits{})
	p.write("one\ntw")
	p.eventually("the first line is there", func(l string) bool { return strings.Contains(l, "stdout F one\n") })
	p.write("o\n")
	p.eventually("the second line is whole", func(l string) bool { return strings.HasSuffix(l, "o\n") })
}

func TestTheBeginningOfALineIsShownAfterAWhile(t *testing.T) {
	t.Parallel()
	p := newPipe(t, Limits{})
	p.write("name? ")
	p.eventually("the prompt is a part", func(l string) bool { return strings.HasSuffix(l, "stdout P name? \n") })
	p.write("Bob\n")
	p.eventually("its end follows", func(l string) bool { return strings.HasSuffix(l, "stdout F Bob\n") })
}

func TestTheEndOfThePipeEndsThePump(t *testing.T) {
	t.Parallel()
	p := newPipe(t, Limits{})
	p.write("last words")
	p.w.Close()
	<-p.pump.Done()
	if !strings.HasSuffix(p.log(), "stdout P last words\n") {
		t.Error(p.log())
	}
}

func TestOutputWaitsInThePipeForTheNextProcess(t *testing.T) {
	t.Parallel()
	p := newPipe(t, Limits{})
	p.write("one\n")
	p.eventually("the first line is there", func(l string) bool { return strings.Contains(l, "one") })
	p.pump.Abandon()
	p.write("two\n")
	p.open(Limits{})
	p.pump.Armed()
	p.eventually("both are there, once", func(l string) bool {
		return strings.Count(l, "F one\n") == 1 && strings.Count(l, "F two\n") == 1
	})
}

// The states in which a killed process can leave mark, log and pipe.
func TestAfterAKillNothingIsLostOrRepeated(t *testing.T) {
	t.Parallel()
	at := time.Now().Add(-time.Second)
	records := func(data string) string { return string(appendRecords(nil, at, Stdout, []byte(data))) }
	for name, c := range map[string]struct {
		log, pipe string
		announced bool
		available int
		want      []string
	}{
		"before the append":                              {log: "", pipe: "a\nb\n", announced: true, available: 4, want: []string{"a", "b"}},
		"after the append":                               {log: records("a\nb\n"), pipe: "a\nb\n", announced: true, available: 4, want: []string{"a", "b"}},
		"in the middle of the append":                    {log: records("a\nb\n")[:50], pipe: "a\nb\n", announced: true, available: 4, want: []string{"a", "b"}},
		"after taking out":                               {log: records("a\nb\n"), pipe: "", announced: true, available: 4, want: []string{"a", "b"}},
		"after taking out, the same line written again":  {log: records("a\n"), pipe: "a\n", announced: false, want: []string{"a", "a"}},
		"after taking out, less than before in the pipe": {log: records("a\nb\n"), pipe: "a\n", announced: true, available: 4, want: []string{"a", "b", "a"}},
		"after taking out, other lines in the pipe":      {log: records("a\n"), pipe: "c\nd\n", announced: true, available: 2, want: []string{"a", "c", "d"}},
		"more has come meanwhile":                        {log: records("a\n"), pipe: "a\nb\n", announced: true, available: 2, want: []string{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPipe(t, Limits{})
			p.pump.Abandon()
			if err := os.WriteFile(p.path(), []byte(c.log), 0o644); err != nil {
				t.Fatal(err)
			}
			m, err := openMark(filepath.Join(p.dir, "out.mark"))
			if err != nil {
				t.Fatal(err)
			}
			defer m.f.Close()
			if c.announced {
				if err := m.announce(announcement{at: at, available: uint32(c.available)}); err != nil {
					t.Fatal(err)
				}
			}
			p.write(c.pipe)
			p.open(Limits{})
			p.pump.Armed()
			p.w.Close()
			<-p.pump.Done()
			var got []string
			for line := range strings.Lines(p.log()) {
				got = append(got, strings.TrimSuffix(strings.SplitN(line, " ", 4)[3], "\n"))
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestTheLogIsRotatedBySizeAndCount(t *testing.T) {
	t.Parallel()
	p := newPipe(t, Limits{MaxBytes: 1000, MaxFiles: 3})
	for i := range 200 {
		p.write(fmt.Sprintf("line %d\n", i))
		if i%20 == 0 {
			p.eventually("it is written", func(l string) bool { return strings.Contains(l, fmt.Sprintf("line %d\n", i)) })
		}
	}
	p.w.Close()
	<-p.pump.Done()
	old, err := rotated(p.path())
	if err != nil {
		t.Fatal(err)
	}
	if len(old) != 2 {
		t.Errorf("moved aside: %v", old)
	}
	if !strings.HasSuffix(p.log(), "line 199\n") {
		t.Errorf("the newest is not in the current file: %q", p.log())
	}
}

func TestReopenFollowsAFileThatWasMovedAway(t *testing.T) {
	t.Parallel()
	p := newPipe(t, Limits{})
	p.write("one\n")
	p.eventually("the first line is there", func(l string) bool { return strings.Contains(l, "one") })
	if err := os.Rename(p.path(), p.path()+".old"); err != nil {
		t.Fatal(err)
	}
	if err := p.pump.Reopen(); err != nil {
		t.Fatal(err)
	}
	p.write("two\n")
	p.eventually("only the second is in the new file", func(l string) bool { return strings.Contains(l, "two") && !strings.Contains(l, "one") })
}

func TestWatchersSeeOutputAtOnceAndOnce(t *testing.T) {
	t.Parallel()
	p := newPipe(t, Limits{})
	var seen locked
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.pump.Watch(stop, &seen, nil); err != nil {
			t.Error(err)
		}
	})
	testenv.Eventually(t, 5*time.Second, func() bool {
		p.pump.watchers.mu.Lock()
		defer p.pump.watchers.mu.Unlock()
		return len(p.pump.watchers.set) == 1
	}, "the watcher is there")
	p.write("prompt> ")
	testenv.Eventually(t, 5*time.Second, func() bool { return seen.String() == "prompt> " }, "the prompt is seen")
	p.write("answer\n")
	testenv.Eventually(t, 5*time.Second, func() bool { return seen.String() == "prompt> answer\n" }, "the line is seen once")
	close(stop)
	wg.Wait()
}

func TestAFullPipeLosesNothing(t *testing.T) {
	t.Parallel()
	p := newPipe(t, Limits{})
	const lines = 20000
	go func() {
		for i := range lines {
			fmt.Fprintf(p.w, "line %d %s\n", i, strings.Repeat("x", i%100))
		}
		p.w.Close()
	}()
	<-p.pump.Done()
	count := 0
	for line := range strings.Lines(p.log()) {
		if !strings.Contains(line, fmt.Sprintf(" F line %d ", count)) {
			t.Fatalf("line %d is %q", count, line)
		}
		count++
	}
	if count != lines {
		t.Errorf("%d of %d lines", count, lines)
	}
}

type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
