// Package hook runs lifecycle handlers: postStart and preStop, by command, by
// HTTP request or by sleeping.
package hook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/event"
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
	events event.Recorder
	client *http.Client
}

// maxBody of an answer is read, so that the program sees no broken connection.
const maxBody = 10 << 10

// NewRunner returns a runner.
func NewRunner(exec Executor, events event.Recorder) *Runner {
	return &Runner{exec: exec, events: events, client: &http.Client{CheckRedirect: probe.StayLocal, Transport: &http.Transport{
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
		if err := r.get(ctx, pod, handler.HTTPGet, container, podIP); err != nil {
			return fmt.Sprintf("HTTP lifecycle hook (%s) %s: %v", handler.HTTPGet.Path, at, err), err
		}
	case handler.Sleep != nil:
		timer := time.NewTimer(time.Duration(handler.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			err := errors.New("container terminated before sleep hook finished")
			return fmt.Sprintf("Sleep lifecycle hook (%d) %s: %v", handler.Sleep.Seconds, at, err), err
		}
	default:
		err := fmt.Errorf("invalid handler: %v", handler)
		return fmt.Sprintf("Cannot run handler: %v", err), err
	}
	return "", nil
}

// get makes the request; whatever the answer is, it was delivered. A server that
// does not speak TLS where it should is asked without, as it always has been.
func (r *Runner) get(ctx context.Context, pod *v1.Pod, action *v1.HTTPGetAction, container *v1.Container, podIP string) error {
	if action.Host == "" && podIP == "" {
		return errors.New("failed to find networking container: the pod has no address")
	}
	request, err := probe.NewRequest(ctx, action, container, podIP, "lifecycle")
	if err != nil {
		return err
	}
	err = r.do(request)
	var failure *url.Error
	if err == nil || !errors.As(err, &failure) || !strings.Contains(failure.Err.Error(), "server gave HTTP response to HTTPS client") {
		return err
	}
	plain := request.Clone(ctx)
	plain.URL.Scheme = "http"
	// Credentials must not travel in the open.
	plain.Header.Del("Authorization")
	if r.do(plain) != nil {
		return err
	}
	r.events.Eventf(event.Pod(pod), v1.EventTypeWarning, "LifecycleHTTPFallback", "request to HTTPS lifecycle hook %s got HTTP response, retry with HTTP succeeded", request.URL.Host)
	return nil
}

func (r *Runner) do(request *http.Request) error {
	response, err := r.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, maxBody))
	return nil
}
