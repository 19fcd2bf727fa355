package proxy

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/labels"
)

// silence is how long one piece of work may take before the loop that does it
// hangs: a thousand services are a second.
const silence = 2 * time.Minute

// askAgain is the time between two questions whether names are answered.
const askAgain = 100 * time.Millisecond

// WaitReady returns nil once this machine does what the API says: services and
// network policies are programmed and cluster DNS answers. While the API is away
// it waits; what is in the kernel from the last run serves on. Run has to run.
func (p *Proxy) WaitReady(ctx context.Context) error {
	programmed := []<-chan struct{}{p.programmed}
	if p.policies != nil {
		programmed = append(programmed, p.policies.Programmed())
	}
	for _, each := range programmed {
		select {
		case <-each:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for p.names != nil {
		if p.names.Serves(ctx) == nil {
			break
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Alive returns an error when the proxy hangs, for the supervisor that then ends
// it and starts it again: when a piece of work does not end, or cluster DNS does
// not answer until ctx ends. To fail, or to be without an API, is no such error:
// the proxy tries again by itself.
func (p *Proxy) Alive(ctx context.Context) error {
	if busy := p.work.Lasts(); busy > silence {
		return fmt.Errorf("programming services has not ended for %s", busy.Truncate(time.Second))
	}
	if p.policies != nil {
		if busy := p.policies.Busy(); busy > silence {
			return fmt.Errorf("programming network policies has not ended for %s", busy.Truncate(time.Second))
		}
	}
	if p.names == nil {
		return nil
	}
	return p.names.Alive(ctx)
}

// Describe says in a line what the proxy does, for systemctl status.
func (p *Proxy) Describe() string {
	if p.health.lastSync.Load() == nil {
		return p.config.Mode + "; waits for the API"
	}
	services, err := p.services.List(labels.Everything())
	if err != nil {
		return fmt.Sprintf("%s; services: %v", p.config.Mode, err)
	}
	line := fmt.Sprintf("%s, %d services", p.config.Mode, len(services))
	if p.config.DNS != nil {
		line += ", DNS at " + p.config.DNS.Address.String()
	}
	if pending := p.health.pending.Load(); pending != nil && time.Since(*pending) > patience {
		line += "; changes have waited since " + pending.Format(time.RFC3339)
	}
	return line
}

// Guard closes the pods of a machine that starts and had network policies, until
// Run has read them.
func (p *Proxy) Guard(ctx context.Context) error {
	if p.policies == nil {
		return nil
	}
	return p.policies.Guard(ctx)
}
