package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// maxExecOutput bounds what ExecSync keeps of each stream, as CRI demands.
const maxExecOutput = 16 << 20

// execDrain is how long the output of a command is waited for after its end: a
// process it left in the background may hold the pipe for ever.
const execDrain = 3 * time.Second

// ExecSync runs a command and returns its output; a k8s.io/utils/exec.CodeExitError
// when it exits non-zero, ErrExecTimeout when it was killed. No timeout when it is zero.
func (r *Runtime) ExecSync(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (stdout, stderr []byte, err error) {
	var out, errs limited
	run := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		run, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	err = r.exec(run, containerID, cmd, nil, &out, &errs, false, nil)
	if err != nil && ctx.Err() == nil && errors.Is(run.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("command %q in container %s after %s: %w", cmd, containerID, timeout, ErrExecTimeout)
	}
	return out.bytes(), errs.bytes(), err
}

// Exec runs a command with streams, as streaming.Runtime of k8s.io/cri-streaming wants it. A non-zero exit is a k8s.io/utils/exec.CodeExitError.
func (r *Runtime) Exec(ctx context.Context, containerID string, cmd []string, in io.Reader, out, err io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	return r.exec(ctx, containerID, cmd, in, writer(out), writer(err), tty, resize)
}

// writer hides a nil WriteCloser, which would be a Writer that is not nil.
func writer(w io.WriteCloser) io.Writer {
	if w == nil {
		return nil
	}
	return w
}

func (r *Runtime) exec(ctx context.Context, containerID string, cmd []string, in io.Reader, out, errs io.Writer, tty bool, resize <-chan remotecommand.TerminalSize) error {
	c, err := r.container(containerID)
	if err != nil {
		return err
	}
	if c.currentState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return fmt.Errorf("exec in container %s: %w", c.id, ErrNotRunning)
	}
	if len(cmd) == 0 {
		return fmt.Errorf("exec in container %s: no command given", c.id)
	}
	switch {
	case tty:
		errs = nil // a terminal has one output
	case in != nil || out != nil || errs != nil:
		// Without a terminal the shim wants both outputs or none.
		if out == nil {
			out = io.Discard
		}
		if errs == nil {
			errs = io.Discard
		}
	}
	e := &execution{runtime: r, container: c.id, tty: tty}
	if err := e.prepare(ctx, cmd, in != nil, out != nil, errs != nil); err != nil {
		return errors.Join(fmt.Errorf("exec in container %s: %w", c.id, err), e.close())
	}
	code, err := e.run(ctx, in, out, errs, resize)
	if cerr := e.close(); cerr != nil {
		r.logger.Warn("pipes of a command could not be removed", "container", c.id, "error", cerr)
	}
	if err != nil {
		return fmt.Errorf("exec in container %s: %w", c.id, err)
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: int(code)}
	}
	return nil
}

// execution is one command in a container.
type execution struct {
	runtime                *Runtime
	container, id          string
	tty                    bool
	stdin, stdout, stderr  *os.File
	inPath, outPath, erPth string
}

// prepare makes the pipes and tells containerd about the command.
func (e *execution) prepare(ctx context.Context, cmd []string, in, out, errs bool) error {
	r := e.runtime
	record, err := r.client.ContainerService().Get(ctx, e.container)
	if err != nil {
		return err
	}
	var s specs.Spec
	if err := json.Unmarshal(record.Spec.GetValue(), &s); err != nil {
		return fmt.Errorf("spec: %w", err)
	}
	process := s.Process
	process.Args, process.Terminal = cmd, e.tty
	any, err := typeurl.MarshalAnyToProto(process)
	if err != nil {
		return fmt.Errorf("encode process: %w", err)
	}
	if e.id, err = newID(); err != nil {
		return err
	}
	dir := r.execPipes(e.id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("pipes: %w", err)
	}
	// A pipe that is opened for reading before anyone writes shows its end at once;
	// so reading begins after Start, when the shim has opened it.
	for _, p := range []struct {
		want bool
		name string
		flag int
		path *string
		file **os.File
	}{
		{in, "stdin", os.O_RDWR, &e.inPath, &e.stdin}, {out, "stdout", os.O_RDONLY, &e.outPath, &e.stdout}, {errs, "stderr", os.O_RDONLY, &e.erPth, &e.stderr},
	} {
		if !p.want {
			continue
		}
		*p.path = filepath.Join(dir, p.name)
		if err := makePipe(*p.path); err != nil {
			return err
		}
		if *p.file, err = os.OpenFile(*p.path, p.flag|unix.O_NONBLOCK, 0); err != nil {
			return fmt.Errorf("open pipe: %w", err)
		}
	}
	_, err = r.client.TaskService().Exec(ctx, &tasks.ExecProcessRequest{
		ContainerID: e.container, ExecID: e.id, Terminal: e.tty, Stdin: e.inPath, Stdout: e.outPath, Stderr: e.erPth, Spec: any,
	})
	return errgrpc.ToNative(err)
}

// run starts the command, moves its streams and returns its exit code. When ctx ends the command is killed.
func (e *execution) run(ctx context.Context, in io.Reader, out, errs io.Writer, resize <-chan remotecommand.TerminalSize) (uint32, error) {
	service := e.runtime.client.TaskService()
	whole, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer func() {
		remove, done := context.WithTimeout(whole, patience)
		defer done()
		// Nothing to do about a failure: the container's end takes the rest away.
		_, _ = service.DeleteProcess(remove, &tasks.DeleteProcessRequest{ContainerID: e.container, ExecID: e.id})
	}()
	if _, err := service.Start(whole, &tasks.StartRequest{ContainerID: e.container, ExecID: e.id}); err != nil {
		return 0, errgrpc.ToNative(err)
	}
	var copies sync.WaitGroup
	e.copyOut(&copies, e.stdout, out)
	e.copyOut(&copies, e.stderr, errs)
	if in != nil {
		// Not waited for: in may never end. Its end, or that of the pipe, ends the copy.
		go func() {
			_, _ = io.Copy(e.stdin, in)
			e.stdin.Close()
			_, _ = service.CloseIO(whole, &tasks.CloseIORequest{ContainerID: e.container, ExecID: e.id, Stdin: true})
		}()
	}
	if e.tty && resize != nil {
		go e.runtime.follows(whole, resize, e.container, e.id)
	}
	type result struct {
		code uint32
		err  error
	}
	ended := make(chan result, 1)
	go func() {
		answer, err := service.Wait(whole, &tasks.WaitRequest{ContainerID: e.container, ExecID: e.id})
		ended <- result{answer.GetExitStatus(), errgrpc.ToNative(err)}
	}()
	var res result
	select {
	case res = <-ended:
	case <-ctx.Done():
		if err := e.runtime.killTask(whole, e.container, e.id); err != nil && !gone(err) {
			return 0, errors.Join(ctx.Err(), err)
		}
		timer := time.NewTimer(execDrain)
		defer timer.Stop()
		select {
		case <-ended:
		case <-timer.C:
		}
		e.drain(&copies)
		return 0, ctx.Err()
	}
	e.drain(&copies)
	return res.code, res.err
}

func (e *execution) copyOut(copies *sync.WaitGroup, from *os.File, to io.Writer) {
	if from == nil {
		return
	}
	copies.Go(func() {
		if _, err := io.Copy(to, from); err != nil {
			// The client went away; keep the command from blocking.
			_, _ = io.Copy(io.Discard, from)
		}
	})
}

// drain waits until the output has ended, but not for ever.
func (e *execution) drain(copies *sync.WaitGroup) {
	deadline := time.Now().Add(execDrain)
	for _, f := range []*os.File{e.stdout, e.stderr} {
		if f != nil {
			_ = f.SetReadDeadline(deadline)
		}
	}
	copies.Wait()
}

func (e *execution) close() error {
	for _, f := range []*os.File{e.stdin, e.stdout, e.stderr} {
		if f != nil {
			f.Close()
		}
	}
	if e.id == "" {
		return nil
	}
	return os.RemoveAll(e.runtime.execPipes(e.id))
}

// follows passes the sizes of the client's terminal on until ctx or the channel ends.
func (r *Runtime) follows(ctx context.Context, resize <-chan remotecommand.TerminalSize, containerID, execID string) {
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-resize:
			if !ok {
				return
			}
			_, err := r.client.TaskService().ResizePty(ctx, &tasks.ResizePtyRequest{
				ContainerID: containerID, ExecID: execID, Width: uint32(size.Width), Height: uint32(size.Height),
			})
			if err != nil && ctx.Err() == nil {
				r.logger.Debug("terminal could not be resized", "container", containerID, "error", err)
			}
		}
	}
}

// limited keeps the beginning of what is written to it.
type limited struct {
	mu sync.Mutex // guards b: a copy may outlive the command's deadline
	b  bytes.Buffer
}

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := maxExecOutput - l.b.Len(); room < len(p) {
		l.b.Write(p[:room])
		return len(p), nil
	}
	return l.b.Write(p)
}

func (l *limited) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}
