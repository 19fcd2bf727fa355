// Package hook runs lifecycle handlers: postStart and preStop, by command, by
// HTTP request or by sleeping.
package hook

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/plan"
	"github.com/skiff-run/skiff/agent/probe"
)

// Executor runs a command in a container.
type Executor interface {
	ExecSync(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (stdout, stderr []byte, err error)
}

// Runner runs handlers.
type Runner struct {
	exec   Executor
	client *http.Client
}

// NewRunner returns a runner.
func NewRunner(exec Executor) *Runner {
	return &Runner{exec: exec, client: &http.Client{Transport: &http.Transport{
		// Pods have no certificate anybody could check.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, Proxy: nil,
	}}}
}

// Run runs one handler until it ends or ctx does. message is for the
// container's status; events must not contain it, it may hold secrets.
func (r *Runner) Run(ctx context.Context, pod *v1.Pod, container *v1.Container, containerID, podIP string, handler *v1.LifecycleHandler) (message string, err error) {
	at := fmt.Sprintf("for Container %q in Pod %q failed - error", container.Name, plan.FormatPod(pod))
	switch {
	case handler.Exec != nil:
		stdout, stderr, err := r.exec.ExecSync(ctx, containerID, handler.Exec.Command, 0)
		if err != nil {
			return fmt.Sprintf("Exec lifecycle hook (%v) %s: %v, message: %q", handler.Exec.Command, at, err, string(stdout)+string(stderr)), err
		}
	case handler.HTTPGet != nil:
		if err := r.get(ctx, handler.HTTPGet, container, podIP); err != nil {
			return fmt.Sprintf("HTTP lifecycle hook (%s) %s: %v", handler.HTTPGet.Path, at, err), err
		}
	case handler.Sleep != nil:
		timer := time.NewTimer(time.Duration(handler.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return fmt.Sprintf("Sleep lifecycle hook (%d) %s: %v", handler.Sleep.Seconds, at, ctx.Err()), ctx.Err()
		}
	default:
		err := fmt.Errorf("invalid handler: %v", handler)
		return fmt.Sprintf("Cannot run handler: %v", err), err
	}
	return "", nil
}

func (r *Runner) get(ctx context.Context, action *v1.HTTPGetAction, container *v1.Container, podIP string) error {
	request, err := probe.NewRequest(ctx, action, container, podIP, "lifecycle")
	if err != nil {
		return err
	}
	response, err := r.client.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}
