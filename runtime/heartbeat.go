package runtime

import (
	"context"
	"fmt"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// beatEvery is how often containerd is asked whether it lives: one that hangs
	// keeps its connections open and merely falls silent.
	beatEvery = 10 * time.Second
	// answerLimit is how long a living containerd may take for the simplest
	// question, also on a crowded machine.
	answerLimit = 10 * time.Second
)

// beat asks containerd for its version until ctx ends or it does not answer.
func (r *Runtime) beat(ctx context.Context) error {
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	for {
		if _, err := r.askVersion(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func (r *Runtime) askVersion(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	v, err := r.client.Version(ctx)
	if err != nil {
		return "", fmt.Errorf("ask containerd at %s for its version: %w", r.options.ContainerdAddress, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.version = v.Version
	return v.Version, nil
}

// Version returns containerd's version, as it was said last.
func (r *Runtime) Version(ctx context.Context, _ string) (*runtimeapi.VersionResponse, error) {
	r.mu.RLock()
	version := r.version
	r.mu.RUnlock()
	if version == "" {
		var err error
		if version, err = r.askVersion(ctx); err != nil {
			return nil, err
		}
	}
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "containerd", RuntimeVersion: version, RuntimeApiVersion: "v1"}, nil
}
