package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// result is what was measured of one peer.
type result struct {
	peer, mode string
	size       int
	// first is from its start until services serve, firstCPU the processor time
	// of that, with that of the programs it runs; memory is afterwards, in MB.
	first, firstCPU time.Duration
	memory          float64
	// changes are from the event of one endpoint's change to the first connection
	// that it leads elsewhere, in order; changeCPU is of one.
	changes   []time.Duration
	changeCPU time.Duration
	// direct and service are the connections to an endpoint's own address and
	// through the service.
	direct, service traffic
}

func (r result) String() string {
	return fmt.Sprintf("%s %s %d: first %v (cpu %v, %.1f MB), change %v (cpu %v), connections per second %.0f direct %.0f service, p50 %v %v, p99 %v %v",
		r.peer, r.mode, r.size, r.first, r.firstCPU, r.memory, quantile(r.changes, 0.5), r.changeCPU,
		r.direct.rate, r.service.rate, r.direct.p50, r.service.p50, r.direct.p99, r.service.p99)
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Round(10 * time.Microsecond)
}

const changes = 11

func (w *world) measure(ctx context.Context, p peer, mode string, size int, only string) (r result, err error) {
	r = result{peer: p.name, mode: mode, size: size}
	work, err := os.MkdirTemp("", "skiff-bench-proxy-")
	if err != nil {
		return r, fmt.Errorf("make a folder: %w", err)
	}
	defer os.RemoveAll(work)
	l, err := w.listen("node", "127.0.0.1:0")
	if err != nil {
		return r, fmt.Errorf("serve the API: %w", err)
	}
	a, err := newAPI(l, size)
	if err != nil {
		return r, err
	}
	kubeconfig := filepath.Join(work, "kubeconfig")
	if err := a.kubeconfig(kubeconfig); err != nil {
		return r, err
	}
	// Whatever the last one left.
	if _, err := w.node("sh", "-c", "nft flush ruleset; for f in iptables ip6tables; do for t in nat filter mangle; do $f-legacy -t $t -F; $f-legacy -t $t -X; done; done"); err != nil {
		return r, err
	}
	begin := time.Now()
	d, err := p.start(ctx, mode, kubeconfig)
	if err != nil {
		return r, err
	}
	defer a.server.Close()
	defer d.stop()
	for _, i := range []int{0, size / 2, size - 1, probe(size)} {
		if err := w.until(ctx, d, clusterIP(i), "a"); err != nil {
			return r, err
		}
	}
	r.first = time.Since(begin).Round(time.Millisecond)
	if r.firstCPU, err = d.processor(); err != nil {
		return r, err
	}
	if r.memory, err = d.memory(); err != nil {
		return r, err
	}
	if strings.Contains(only, "sync") {
		if err := w.change(ctx, a, d, &r); err != nil {
			return r, err
		}
	}
	if strings.Contains(only, "traffic") {
		err = w.compare(&r)
	}
	if quantile(r.changes, 1) > time.Second {
		// Something went wrong, and the log should say what.
		fmt.Fprintf(os.Stderr, "log of %s:\n%s\n", p.program, d.log.String())
	}
	return r, err
}

// tryFor is how long an attempt may take before there are rules, when nobody answers.
const tryFor = 20 * time.Millisecond

// until connects from the client until the host answers.
func (w *world) until(ctx context.Context, d *daemon, address, host string) error {
	deadline := time.Now().Add(3 * time.Minute)
	return w.in("client", func() error {
		for {
			if got, err := connect(address+":80", tryFor); err == nil && got == host {
				return nil
			} else if time.Now().After(deadline) {
				return fmt.Errorf("%s does not answer from %s: got %q, %w\n%s", address, host, got, err, d.log.String())
			}
			if err := d.alive(); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			time.Sleep(500 * time.Microsecond)
		}
	})
}

func connect(address string, limit time.Duration) (string, error) {
	connection, err := net.DialTimeout("tcp", address, limit)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	if err := connection.(*net.TCPConn).SetLinger(0); err != nil {
		return "", err
	}
	name := make([]byte, 1)
	_ = connection.SetReadDeadline(time.Now().Add(limit))
	if _, err := io.ReadFull(connection, name); err != nil {
		return "", err
	}
	return string(name), nil
}

// pause is between two changes: kube-proxy programs at most once a second.
const pause = 1200 * time.Millisecond

func (w *world) change(ctx context.Context, a *api, d *daemon, r *result) error {
	// What the start left to do is no part of the changes.
	time.Sleep(pause)
	before, err := d.processor()
	if err != nil {
		return err
	}
	i := probe(r.size)
	for n := range changes {
		endpoint, host := podB, "b"
		if n%2 == 1 {
			endpoint, host = podA(i, 0), "a"
		}
		begin := time.Now()
		if err := a.update(slice(i, []string{endpoint})); err != nil {
			return err
		}
		if err := w.until(ctx, d, clusterIP(i), host); err != nil {
			return err
		}
		r.changes = append(r.changes, time.Since(begin))
		time.Sleep(pause)
	}
	after, err := d.processor()
	if err != nil {
		return err
	}
	r.changeCPU = ((after - before) / changes).Round(100 * time.Microsecond)
	slices.Sort(r.changes)
	return nil
}

// traffic is what connections took.
type traffic struct {
	rate     float64
	p50, p99 time.Duration
}

// Rounds of direct connections and of connections through the service take
// turns, so that what else the machine does hits both.
const (
	rounds          = 6
	perRound        = 1500
	connectionsOnce = 2
)

func (w *world) compare(r *result) error {
	direct, service := fmt.Sprintf("%s:%d", podA(r.size/2, 0), podPort), clusterIP(r.size/2)+":80"
	var took [2]time.Duration
	var all [2][]time.Duration
	for n := range rounds * 2 {
		address := []string{direct, service}[n%2]
		begin := time.Now()
		latencies, err := w.round(address)
		if err != nil {
			return err
		}
		took[n%2] += time.Since(begin)
		all[n%2] = append(all[n%2], latencies...)
	}
	for i, t := range []*traffic{&r.direct, &r.service} {
		slices.Sort(all[i])
		*t = traffic{float64(len(all[i])) / took[i].Seconds(), quantile(all[i], 0.5), quantile(all[i], 0.99)}
	}
	return nil
}

func (w *world) round(address string) ([]time.Duration, error) {
	var group sync.WaitGroup
	all := make([][]time.Duration, connectionsOnce)
	errs := make([]error, connectionsOnce)
	for worker := range connectionsOnce {
		group.Go(func() {
			errs[worker] = w.in("client", func() error {
				for range perRound / connectionsOnce {
					begin := time.Now()
					if _, err := connect(address, time.Second); err != nil {
						return fmt.Errorf("connect to %s: %w", address, err)
					}
					all[worker] = append(all[worker], time.Since(begin))
				}
				return nil
			})
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return slices.Concat(all...), nil
}
