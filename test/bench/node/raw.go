package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// rawContainers are started by ctr: the floor under every pod.
type rawContainers struct{ socket, image string }

// namespace is where the agent's containers and images are.
const namespace = "k8s.io"

func (r rawContainers) ctr(ctx context.Context, arguments ...string) error {
	all := append([]string{"--address", r.socket, "--namespace", namespace}, arguments...)
	if output, err := exec.CommandContext(ctx, "ctr", all...).CombinedOutput(); err != nil {
		return fmt.Errorf("ctr %s: %w\n%s", strings.Join(arguments, " "), err, output)
	}
	return nil
}

// burst starts n containers, parallel at a time, and removes them afterwards.
func (r rawContainers) burst(ctx context.Context, name string, n, parallel int) (took time.Duration, err error) {
	id := func(i int) string { return fmt.Sprintf("bench-%s-%d", name, i) }
	defer func() {
		removing := errgroup.Group{}
		removing.SetLimit(parallel)
		for i := range n {
			removing.Go(func() error {
				_ = r.ctr(ctx, "task", "rm", "--force", id(i)) // gone already, or the next line says so
				return r.ctr(ctx, "container", "rm", id(i))
			})
		}
		if problem := removing.Wait(); err == nil {
			err = problem
		}
	}()
	began := time.Now()
	starting, startingCtx := errgroup.WithContext(ctx)
	starting.SetLimit(parallel)
	for i := range n {
		starting.Go(func() error { return r.ctr(startingCtx, "run", "--detach", r.image, id(i), "sleep", "3600") })
	}
	if err := starting.Wait(); err != nil {
		return 0, err
	}
	return time.Since(began), nil
}
