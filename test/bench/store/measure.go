package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"
)

// line is one row of the report: the same measurement of each store.
type line struct {
	what string
	unit string
	// more says that a larger figure is the better one.
	more   bool
	values map[string]float64
	notes  map[string]string
}

// retryAfter is how long a writer waits for an answer before it writes again,
// while leaders are killed.
const retryAfter = 300 * time.Millisecond

// suite measures clusters one after the other, so that both have the whole machine.
type suite struct {
	out     io.Writer
	seconds time.Duration
	kills   int
	// onlyOutages measures nothing but kills and transfers.
	onlyOutages bool
	objects     int
	rest        time.Duration
	lines       []*line
}

func (s *suite) note(c cluster, what, unit string, more bool, value float64, note string) {
	fmt.Fprintf(s.out, "%-6s %-46s %12.2f %s %s\n", c.name(), what, value, unit, note)
	for _, l := range s.lines {
		if l.what == what {
			l.values[c.name()], l.notes[c.name()] = value, note
			return
		}
	}
	s.lines = append(s.lines, &line{what: what, unit: unit, more: more,
		values: map[string]float64{c.name(): value}, notes: map[string]string{c.name(): note}})
}

// measure runs everything against one cluster.
func (s *suite) measure(ctx context.Context, c cluster) error {
	defer stopAll(c)
	if err := startAll(ctx, c); err != nil {
		return err
	}
	steps := []func(context.Context, cluster) error{s.atRest, s.puts, s.reads, s.fanOut, s.failOver, s.handOver, s.large}
	if s.onlyOutages {
		steps = []func(context.Context, cluster) error{s.failOver, s.handOver}
	}
	for _, step := range steps {
		if err := step(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// atRest is what three members cost while nobody asks anything.
func (s *suite) atRest(ctx context.Context, c cluster) error {
	type reading struct {
		bytes int64
		cpu   time.Duration
	}
	read := func() (all []reading, err error) {
		for i := range members {
			var r reading
			pid := c.process(i).Process.Pid
			if r.bytes, err = written(pid); err != nil {
				return nil, err
			}
			if r.cpu, err = cpu(pid); err != nil {
				return nil, err
			}
			all = append(all, r)
		}
		return all, nil
	}
	before, err := read()
	if err != nil {
		return err
	}
	select {
	case <-time.After(s.rest): // the time at rest is what is measured
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := read()
	if err != nil {
		return err
	}
	var bytes int64
	var busy time.Duration
	for i := range after {
		bytes += after[i].bytes - before[i].bytes
		busy += after[i].cpu - before[i].cpu
	}
	s.note(c, "at rest: written per hour, three members", "MB", false, float64(bytes)/1e6*float64(time.Hour)/float64(s.rest), "")
	s.note(c, "at rest: processor, each member", "% of a core", false, 100*busy.Seconds()/s.rest.Seconds()/members, "")
	return nil
}

func (s *suite) puts(ctx context.Context, c cluster) error {
	leader, err := c.leader(ctx)
	if err != nil {
		return err
	}
	for _, place := range []struct {
		name   string
		member int
	}{{"leader", leader}, {"follower", (leader + 1) % members}} {
		for _, clients := range []int{1, 64, 256} {
			o, err := c.run(ctx, place.member, Workload{Kind: "put", Clients: clients, For: s.seconds, Keys: 5000, Value: 512})
			if err != nil {
				return err
			}
			s.note(c, fmt.Sprintf("puts at the %s, %d clients", place.name, clients), "per s", true, o.Rate(), latencies(o))
		}
	}
	return nil
}

func latencies(o Outcome) string {
	text := fmt.Sprintf("p50 %.2f ms, p99 %.2f ms", ms(o.P50), ms(o.P99))
	if o.Failed > 0 {
		text += fmt.Sprintf(", %d failed: %s", o.Failed, o.Error)
	}
	return text
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (s *suite) reads(ctx context.Context, c cluster) error {
	leader, err := c.leader(ctx)
	if err != nil {
		return err
	}
	for _, w := range []struct {
		what, unit string
		Workload
	}{
		{"linearizable gets at a follower, 64 clients", "per s", Workload{Kind: "get", Clients: 64, For: s.seconds, Keys: 5000}},
		{"linearizable pages of 500 at a follower, 8 clients", "per s", Workload{Kind: "page", Clients: 8, For: s.seconds, Keys: 5000}},
	} {
		o, err := c.run(ctx, (leader+1)%members, w.Workload)
		if err != nil {
			return err
		}
		s.note(c, w.what, w.unit, true, o.Rate(), latencies(o))
	}
	return nil
}

func (s *suite) fanOut(ctx context.Context, c cluster) error {
	leader, err := c.leader(ctx)
	if err != nil {
		return err
	}
	o, err := c.run(ctx, (leader+1)%members, Workload{Kind: "watch", Clients: 1000, Keys: 200, Value: 512})
	if err != nil {
		return err
	}
	s.note(c, "watch: events to 1,000 watchers at a follower", "per s", true, o.Rate(), o.Error)
	return nil
}

// failOver kills the leader again and again under a writer at another member.
func (s *suite) failOver(ctx context.Context, c cluster) error {
	return s.gaps(ctx, c, "leader killed: writes accepted again", s.kills, func(ctx context.Context, leader int) error {
		kill(c, leader)
		return nil
	}, func(ctx context.Context, was int) error { return c.start(was) })
}

// handOver moves leadership in an orderly way under a writer.
func (s *suite) handOver(ctx context.Context, c cluster) error {
	return s.gaps(ctx, c, "planned transfer: longest pause of a writer", max(s.kills/2, 5), func(ctx context.Context, _ int) error {
		return c.transfer(ctx)
	}, func(context.Context, int) error { return nil })
}

func (s *suite) gaps(ctx context.Context, c cluster, what string, times int, disturb, repair func(context.Context, int) error) error {
	var pauses []time.Duration
	failed := 0
	for range times {
		var leader int
		err := until(ctx, func(ctx context.Context) (err error) { leader, err = c.leader(ctx); return err })
		if err != nil {
			return fmt.Errorf("%s: %s: %w", c.name(), what, err)
		}
		type answer struct {
			Outcome
			err error
		}
		done := make(chan answer, 1)
		go func() {
			o, err := c.run(ctx, (leader+1)%members, Workload{Kind: "put", Clients: 1, For: 4 * time.Second, Keys: 5000, Value: 512, Attempt: retryAfter})
			done <- answer{o, err}
		}()
		select {
		case <-time.After(700 * time.Millisecond): // into the run of the writer
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := disturb(ctx, leader); err != nil {
			return fmt.Errorf("%s: %s: %w", c.name(), what, err)
		}
		a := <-done
		if a.err != nil {
			return a.err
		}
		pauses, failed = append(pauses, a.LongestGap), failed+a.Failed
		if err := repair(ctx, leader); err != nil {
			return err
		}
		if err := allHealthy(ctx, c); err != nil {
			return err
		}
	}
	slices.Sort(pauses)
	note := fmt.Sprintf("%d times, %d writes failed", times, failed)
	s.note(c, what+", p50", "ms", false, ms(pauses[len(pauses)/2]), note)
	s.note(c, what+", p99", "ms", false, ms(pauses[len(pauses)*99/100]), note)
	return nil
}

// large fills the store and looks at memory and at the time of a restart.
func (s *suite) large(ctx context.Context, c cluster) error {
	leader, err := c.leader(ctx)
	if err != nil {
		return err
	}
	follower := (leader + 1) % members
	before, _, err := memory(c.process(follower).Process.Pid)
	if err != nil {
		return err
	}
	if o, err := c.run(ctx, leader, Workload{Kind: "fill", Clients: 64, Keys: s.objects, Value: 512}); err != nil || o.Failed > 0 {
		return fmt.Errorf("%s: fill: %d failed, %w", c.name(), o.Failed, err)
	}
	anonymous, resident, err := memory(c.process(follower).Process.Pid)
	if err != nil {
		return err
	}
	s.note(c, fmt.Sprintf("%d objects of 512 bytes: anonymous memory", s.objects), "MB", false, float64(anonymous)/1e6,
		fmt.Sprintf("%.0f MB before, resident %.0f MB", float64(before)/1e6, float64(resident)/1e6))
	process := c.process(follower)
	if err := process.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	_ = process.Wait() // its exit code is not what is measured
	began := time.Now()
	if err := c.start(follower); err != nil {
		return err
	}
	if err := until(ctx, func(ctx context.Context) error { return c.healthy(ctx, follower) }); err != nil {
		return err
	}
	s.note(c, fmt.Sprintf("%d objects: restart of a member to its first read", s.objects), "ms", false, ms(time.Since(began)), "")
	return nil
}
