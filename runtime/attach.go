package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/skiff-run/skiff/runtime/namespace"
)

// stdin is our end of a container's input. It stays open between clients; the shim
// keeps the pipe too, so that the input does not end when this process does.
type stdin struct {
	file   *os.File
	closed bool
}

// close must be called with the container's mu held.
func (s *stdin) close() {
	s.closed = true
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
}

// Attach joins the streams of the container's own process until it ends, the
// client's input of a container with stdinOnce ends, or ctx does.
func (r *Runtime) Attach(ctx context.Context, containerID string, in io.Reader, out, err io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	c, cerr := r.container(containerID)
	if cerr != nil {
		return cerr
	}
	c.mu.Lock()
	pump, running := c.pump, c.state == runtimeapi.ContainerState_CONTAINER_RUNNING
	c.mu.Unlock()
	if !running || pump == nil {
		return fmt.Errorf("attach to container %s: %w", c.id, ErrNotRunning)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if tty && resize != nil {
		go r.follows(ctx, resize, c.id, "")
	}
	if in != nil && c.facts.config.GetStdin() {
		input, serr := r.openStdin(c)
		if serr != nil {
			return fmt.Errorf("attach to container %s: %w", c.id, serr)
		}
		// Not waited for: it ends with the client's stream or the container.
		go func() {
			_, werr := io.Copy(input, in)
			if c.facts.config.GetStdinOnce() && werr == nil {
				r.closeStdin(c)
			}
		}()
	}
	if werr := pump.Watch(ctx.Done(), writer(out), writer(err)); werr != nil {
		return fmt.Errorf("attach to container %s: %w", c.id, werr)
	}
	return nil
}

// openStdin opens the pipe at the first client.
func (r *Runtime) openStdin(c *container) (*os.File, error) {
	path, _, _ := r.pipePaths(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stdin.closed {
		return nil, errors.New("its input has been closed")
	}
	if c.stdin.file == nil {
		// Both ways, so that opening does not wait for the shim.
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, fmt.Errorf("open input: %w", err)
		}
		c.stdin.file = f
	}
	return c.stdin.file, nil
}

// closeStdin ends the container's input for good.
func (r *Runtime) closeStdin(c *container) {
	c.mu.Lock()
	c.stdin.close()
	c.mu.Unlock()
	r.background(func(ctx context.Context) {
		if _, err := r.client.TaskService().CloseIO(ctx, &tasks.CloseIORequest{ContainerID: c.id, Stdin: true}); err != nil {
			r.logger.Debug("input of a container could not be closed", "container", c.id, "error", err)
		}
	})
}

// PortForward connects stream with a TCP port inside the pod.
func (r *Runtime) PortForward(ctx context.Context, podSandboxID string, port int32, stream io.ReadWriteCloser) error {
	s, err := r.sandbox(podSandboxID)
	if err != nil {
		return err
	}
	if s.state() != runtimeapi.PodSandboxState_SANDBOX_READY {
		return fmt.Errorf("port-forward to pod sandbox %s: it is not ready", s.id)
	}
	conn, err := r.dial(ctx, s, port)
	if err != nil {
		return fmt.Errorf("failed to connect to localhost:%d inside namespace %q: %w", port, s.id, err)
	}
	defer conn.Close()
	defer stream.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		// The pod's answers; when they end, so does the client's stream.
		_, _ = io.Copy(stream, conn)
		stream.Close()
	})
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	_, err = io.Copy(conn, stream)
	if half, ok := conn.(*net.TCPConn); ok {
		_ = half.CloseWrite() // the pod sees the end and may answer on
	}
	if err != nil {
		conn.Close()
	}
	wg.Wait()
	return nil
}

// dial connects to loopback in the pod's network namespace: IPv4, then IPv6.
func (r *Runtime) dial(ctx context.Context, s *sandbox, port int32) (net.Conn, error) {
	var conn net.Conn
	connect := func() error {
		var dialer net.Dialer
		var err error
		for _, host := range []string{"127.0.0.1", "::1"} {
			var derr error
			if conn, derr = dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port)))); derr == nil {
				return nil
			}
			err = errors.Join(err, derr)
		}
		return err
	}
	err := error(nil)
	if s.hostNetwork() {
		err = connect()
	} else {
		err = namespace.Do(r.pin(s, namespace.Net), namespace.Net, connect)
	}
	return conn, err
}
