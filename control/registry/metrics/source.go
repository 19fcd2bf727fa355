package metrics

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/registry/rest"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/core"
)

const (
	// fresh is how long an agent's answer serves others.
	fresh = 5 * time.Second
	// patience is how long an agent may take.
	patience = 5 * time.Second
	// atOnce is how many agents are asked at a time for one request.
	atOnce = 32
	// longest answer that is read: some kilobytes a hundred pods are usual.
	longest = 16 << 20
)

// nodeReader gives nodes by name and lists them.
type nodeReader interface {
	Read(ctx context.Context, name string) (*corev1.Node, error)
	rest.Lister
}

// top is what an agent says.
type top struct {
	Node *metricsv1beta1.NodeMetrics `json:"node,omitempty"`
	Pods []metricsv1beta1.PodMetrics `json:"pods"`
}

// source asks agents. It is safe for concurrent use.
type source struct {
	agents registry.Agents
	nodes  nodeReader

	mu    sync.Mutex // guards known, the answers of the last seconds by node
	known map[string]*answer
}

// answer of one agent; done is closed when it is there.
type answer struct {
	done chan struct{}
	top  top
	err  error
}

func newSource(agents registry.Agents, nodes nodeReader) *source {
	return &source{agents: agents, nodes: nodes, known: map[string]*answer{}}
}

// of returns what the agents of the named nodes say; those that do not answer are missing.
func (s *source) of(ctx context.Context, names []string) map[string]top {
	var mu sync.Mutex // guards all
	all := map[string]top{}
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for _, name := range names {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if told, err := s.ask(ctx, name); err == nil {
				mu.Lock()
				all[name] = told
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return all
}

// ask returns what one agent says, or said a moment ago. Who asks while it is
// being asked waits for that answer.
func (s *source) ask(ctx context.Context, name string) (top, error) {
	s.mu.Lock()
	a := s.known[name]
	if a == nil {
		a = &answer{done: make(chan struct{})}
		s.known[name] = a
		go s.answer(context.WithoutCancel(ctx), name, a)
	}
	s.mu.Unlock()
	select {
	case <-a.done:
		return a.top, a.err
	case <-ctx.Done():
		return top{}, ctx.Err()
	}
}

// answer asks one agent for all who wait, and forgets what it said soon after, so
// that nothing is kept while nobody asks.
func (s *source) answer(ctx context.Context, name string, a *answer) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a.top, a.err = s.fetch(ctx, name)
	close(a.done)
	time.AfterFunc(fresh, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.known, name)
	})
}

func (s *source) fetch(ctx context.Context, name string) (top, error) {
	node, err := s.nodes.Read(ctx, name)
	if err != nil {
		return top{}, err
	}
	address, err := core.AgentAddress(node, s.agents.Port)
	if err != nil {
		return top{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/metrics/usage", nil)
	if err != nil {
		return top{}, fmt.Errorf("ask the agent of node %s: %w", name, err)
	}
	response, err := s.agents.Transport.RoundTrip(request)
	if err != nil {
		return top{}, fmt.Errorf("ask the agent of node %s: %w", name, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return top{}, fmt.Errorf("ask the agent of node %s: %s", name, response.Status)
	}
	var told top
	if err := json.NewDecoder(io.LimitReader(response.Body, longest)).Decode(&told); err != nil {
		return top{}, fmt.Errorf("read what the agent of node %s uses: %w", name, err)
	}
	return told, nil
}
