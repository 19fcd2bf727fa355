package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// target is a store as its clients see it. Methods are safe for concurrent use.
type target interface {
	// Put writes a key unconditionally and returns when the write is durable.
	Put(ctx context.Context, key string, value []byte) error
	// Get is a linearizable read of one key.
	Get(ctx context.Context, key string) error
	// Page is a linearizable read of up to limit keys from start on and returns their number.
	Page(ctx context.Context, prefix, start string, limit int) (int, error)
	// Watch calls seen for each event below the prefix until ctx ends. It returns once
	// the watch stands; from then on nothing is missed.
	Watch(ctx context.Context, prefix string, seen func()) error
}

// Workload is one measurement a target can be asked for.
type Workload struct {
	Kind    string        `json:"kind"`
	Clients int           `json:"clients"`
	For     time.Duration `json:"for,omitempty"`
	// Keys is the number of keys the workload touches or fills in.
	Keys int `json:"keys"`
	// Value is the size of a value in bytes.
	Value int `json:"value"`
	// Attempt bounds one operation, which is then counted as failed.
	Attempt time.Duration `json:"attempt,omitempty"`
}

// Outcome is what a workload measured.
type Outcome struct {
	Operations int           `json:"operations"`
	Failed     int           `json:"failed"`
	Took       time.Duration `json:"took"`
	P50        time.Duration `json:"p50"`
	P99        time.Duration `json:"p99"`
	// LongestGap is the longest time without a success that one client saw.
	LongestGap time.Duration `json:"longestGap"`
	Error      string        `json:"error,omitempty"`
}

// Rate is successful operations per second.
func (o Outcome) Rate() float64 {
	if o.Took <= 0 {
		return 0
	}
	return float64(o.Operations) / o.Took.Seconds()
}

const (
	benchPrefix = "/registry/pods/"
	pageSize    = 500
	// defaultAttempt bounds one operation where the workload says nothing.
	defaultAttempt = 5 * time.Second
)

func key(i int) string { return fmt.Sprintf("%sns%d/pod-%08d", benchPrefix, i%100, i) }

// run measures a workload against a target.
func (w Workload) run(ctx context.Context, t target) Outcome {
	switch w.Kind {
	case "put":
		value := make([]byte, w.Value)
		return w.clients(ctx, func(ctx context.Context, n int) error { return t.Put(ctx, key(n%w.Keys), value) })
	case "get":
		return w.clients(ctx, func(ctx context.Context, n int) error { return t.Get(ctx, key(n*7919%w.Keys)) })
	case "page":
		return w.clients(ctx, func(ctx context.Context, n int) error {
			_, err := t.Page(ctx, benchPrefix, key(n*7919%w.Keys), pageSize)
			return err
		})
	case "fill":
		return w.fill(ctx, t)
	case "watch":
		return w.watch(ctx, t)
	}
	return Outcome{Error: "unknown workload " + w.Kind}
}

// clients runs one operation again and again from several goroutines.
func (w Workload) clients(ctx context.Context, operate func(context.Context, int) error) Outcome {
	ctx, cancel := context.WithTimeout(ctx, w.For)
	defer cancel()
	attempt := w.Attempt
	if attempt == 0 {
		attempt = defaultAttempt
	}
	var next, failed atomic.Int64
	var mu sync.Mutex // guards samples, gap and said
	var samples []time.Duration
	var gap time.Duration
	var said string
	began := time.Now()
	var group sync.WaitGroup
	for range w.Clients {
		group.Go(func() {
			var own []time.Duration
			var longest time.Duration
			var problem string
			last := time.Now()
			for ctx.Err() == nil {
				begin := time.Now()
				one, done := context.WithTimeout(context.WithoutCancel(ctx), attempt)
				err := operate(one, int(next.Add(1)))
				done()
				now := time.Now()
				if err != nil {
					failed.Add(1)
					problem = err.Error()
					continue
				}
				longest = max(longest, now.Sub(last))
				last = now
				own = append(own, now.Sub(begin))
			}
			longest = max(longest, time.Since(last)) // what ended without a success counts
			mu.Lock()
			defer mu.Unlock()
			samples, gap = append(samples, own...), max(gap, longest)
			if problem != "" {
				said = problem
			}
		})
	}
	group.Wait()
	return outcome(samples, int(failed.Load()), time.Since(began), gap, said)
}

func outcome(samples []time.Duration, failed int, took, gap time.Duration, said string) Outcome {
	o := Outcome{Operations: len(samples), Failed: failed, Took: took, LongestGap: gap, Error: said}
	if len(samples) > 0 {
		slices.Sort(samples)
		o.P50, o.P99 = samples[len(samples)/2], samples[len(samples)*99/100]
	}
	return o
}

// fill writes each of the keys once.
func (w Workload) fill(ctx context.Context, t target) Outcome {
	value := make([]byte, w.Value)
	var next, failed atomic.Int64
	began := time.Now()
	var group sync.WaitGroup
	for range w.Clients {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < w.Keys && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := t.Put(ctx, key(i), value); err != nil {
					failed.Add(1)
				}
			}
		})
	}
	group.Wait()
	return Outcome{Operations: w.Keys - int(failed.Load()), Failed: int(failed.Load()), Took: time.Since(began)}
}

// watch has Clients watchers see Keys writes; an operation is one event seen by one watcher.
func (w Workload) watch(ctx context.Context, t target) Outcome {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	const prefix = "/registry/watched/"
	want := int64(w.Clients) * int64(w.Keys)
	var seen atomic.Int64
	all := make(chan struct{})
	for range w.Clients {
		err := t.Watch(ctx, prefix, func() {
			if seen.Add(1) == want {
				close(all)
			}
		})
		if err != nil {
			return Outcome{Error: err.Error()}
		}
	}
	value := make([]byte, w.Value)
	began := time.Now()
	for i := range w.Keys {
		if err := t.Put(ctx, fmt.Sprintf("%s%d", prefix, i), value); err != nil {
			return Outcome{Error: err.Error()}
		}
	}
	select {
	case <-all:
	case <-ctx.Done():
		return Outcome{Operations: int(seen.Load()), Took: time.Since(began), Error: "not all events were seen"}
	}
	return Outcome{Operations: int(want), Took: time.Since(began)}
}
