package proxy

import (
	"context"

	"github.com/skiff-run/skiff/proxy/conntrack"
)

// Once programs the present state and returns, without serving names or health.
func (p *Proxy) Once(ctx context.Context) error {
	t, err := p.read(ctx)
	if err != nil {
		return err
	}
	if err := p.config.Backend.Sync(ctx, t); err != nil {
		return err
	}
	if p.policies != nil {
		if err := p.policies.Once(ctx); err != nil {
			return err
		}
	}
	if _, err = conntrack.FlowsOf(t).Forget(); err != nil || p.config.Retire == nil {
		return err
	}
	done, err := p.config.Retire(ctx)
	if err == nil && !done {
		p.config.Logger.Info("connections live on in what another mode left; a running proxy or another run removes it later")
	}
	return err
}

// Print returns what Once would program, and changes nothing.
func (p *Proxy) Print(ctx context.Context) (string, error) {
	t, err := p.read(ctx)
	if err != nil {
		return "", err
	}
	text := p.config.Backend.Print(t)
	if p.policies == nil {
		return text, nil
	}
	more, err := p.policies.Print(ctx)
	return text + more, err
}
