package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/skiff-run/skiff/internal/daemon"
	"github.com/skiff-run/skiff/internal/operator"
)

// Restart back-off of a daemon that ended: doubled from the first to the last,
// forgotten after it ran for steadyAfter.
const (
	firstRestart = 500 * time.Millisecond
	lastRestart  = 10 * time.Second
	steadyAfter  = 30 * time.Second
)

// supervisor keeps programs running until its context ends. Ending a program
// is not its task: Down does that, in order.
type supervisor struct {
	out   io.Writer
	group sync.WaitGroup
}

// run starts the program at once and keeps it running. Until settled is closed, the
// program's end is reported to failed instead: while a cluster starts, a daemon
// that ends has something to say, such as a bad configuration.
func (s *supervisor) run(ctx context.Context, p program, settled <-chan struct{}, failed chan<- error) error {
	command, err := p.start()
	if err != nil {
		return err
	}
	s.group.Go(func() {
		backoff := firstRestart
		started := time.Now()
		for {
			var waitErr error
			if command != nil {
				waitErr = command.Wait()
			}
			if ctx.Err() != nil {
				return
			}
			select {
			case <-settled:
			default:
				failed <- fmt.Errorf("%s ended while starting (%v); the end of its log %s:\n%s", p.name, waitErr, p.log, tail(p.log, 12))
				return
			}
			if exit := (*exec.ExitError)(nil); errors.As(waitErr, &exit) && exit.ExitCode() == daemon.ExitFinal {
				fmt.Fprintf(s.out, "%s %s ended and stays so; the end of its log %s says what to do:\n%s\n", time.Now().Format(time.RFC3339), p.name, p.log, tail(p.log, 1))
				return
			}
			if time.Since(started) > steadyAfter {
				backoff = firstRestart
			}
			fmt.Fprintf(s.out, "%s %s ended (%v), starting it again in %s\n", time.Now().Format(time.RFC3339), p.name, waitErr, backoff)
			select {
			case <-ctx.Done():
				return
			case <-time.After(backoff):
			}
			backoff = min(2*backoff, lastRestart)
			started = time.Now()
			if command, err = p.start(); err != nil {
				command = nil
				fmt.Fprintf(s.out, "%s %v\n", time.Now().Format(time.RFC3339), err)
			}
		}
	})
	return nil
}

// daemonPrograms describes the daemons of the role as configured.
func (o *Options) daemonPrograms(role operator.Role) ([]program, error) {
	var programs []program
	for _, name := range daemonsOf(role) {
		binary, err := o.binary(name)
		if err != nil {
			return nil, err
		}
		programs = append(programs, program{
			name: filepath.Base(binary), args: []string{binary, "--config", o.Config(name)},
			log: o.Log(name), pidFile: o.PIDFile(name), stop: 15 * time.Second,
		})
	}
	return programs, nil
}
