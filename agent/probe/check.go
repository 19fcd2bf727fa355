package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilexec "k8s.io/utils/exec"

	"syscall"

	"github.com/skiff-run/skiff/agent/environ"
	"github.com/skiff-run/skiff/agent/plan"
)

// maxOutput bounds what is read from a probed program.
const maxOutput = 10 << 10

// userAgent of the requests, by purpose.
const userAgent = "kube-%s/1.37"

// outcome of one check.
type outcome int

const (
	succeeded outcome = iota
	warned
	failed
)

// Executor runs a command in a container.
type Executor interface {
	ExecSync(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (stdout, stderr []byte, err error)
}

// checker runs single checks.
type checker struct {
	exec      Executor
	transport http.RoundTripper
	dialer    *net.Dialer
}

func newChecker(exec Executor) *checker {
	dialer := &net.Dialer{Control: lingerBriefly}
	return &checker{exec: exec, dialer: dialer, transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, DisableCompression: true,
		DialContext: dialer.DialContext, ForceAttemptHTTP2: true,
	}}
}

// lingerBriefly keeps closed probe connections out of TIME-WAIT, where they
// would use up ports.
func lingerBriefly(_, _ string, c syscall.RawConn) error {
	var err error
	if controlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 1})
	}); controlErr != nil {
		return controlErr
	}
	return err
}

// check runs one probe. An error means the check itself could not be made.
func (c *checker) check(ctx context.Context, t *target) (outcome, string, error) {
	timeout := time.Duration(max(t.spec.TimeoutSeconds, 1)) * time.Second
	switch {
	case t.spec.Exec != nil:
		return c.command(ctx, t, timeout)
	case t.spec.HTTPGet != nil:
		return c.http(ctx, t, timeout)
	case t.spec.TCPSocket != nil:
		port, err := resolvePort(t.spec.TCPSocket.Port, t.container)
		if err != nil {
			return failed, "", err
		}
		return c.tcp(ctx, net.JoinHostPort(orDefault(t.spec.TCPSocket.Host, t.podIP), strconv.Itoa(port)), timeout)
	case t.spec.GRPC != nil:
		return c.grpc(ctx, t, timeout)
	}
	return failed, "", fmt.Errorf("missing probe handler for %s:%s", plan.FormatPod(t.pod), t.container.Name)
}

func (c *checker) command(ctx context.Context, t *target, timeout time.Duration) (outcome, string, error) {
	var vars []environ.Var
	for _, e := range t.container.Env {
		if e.ValueFrom == nil {
			vars = append(vars, environ.Var{Name: e.Name, Value: e.Value})
		}
	}
	command := environ.ExpandAll(t.spec.Exec.Command, vars)
	stdout, stderr, err := c.exec.ExecSync(ctx, t.containerID, command, timeout)
	output := string(stdout) + string(stderr)
	output = output[:min(len(output), maxOutput)]
	var exit utilexec.CodeExitError
	switch {
	case err == nil:
		return succeeded, output, nil
	case errors.As(err, &exit):
		if exit.Code == 0 {
			return succeeded, output, nil
		}
		return failed, output, nil
	case status.Code(err) == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded):
		return failed, fmt.Sprintf("command timed out: %q timed out after %v", strings.Join(command, " "), timeout), nil
	}
	return failed, "", err
}

func (c *checker) http(ctx context.Context, t *target, timeout time.Duration) (outcome, string, error) {
	request, err := NewRequest(ctx, t.spec.HTTPGet, t.container, t.podIP, "probe")
	if err != nil {
		return failed, "", err
	}
	client := &http.Client{Transport: c.transport, Timeout: timeout, CheckRedirect: StayLocal}
	response, err := client.Do(request)
	if err != nil {
		return failed, err.Error(), nil
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxOutput))
	if err != nil {
		return failed, "", err
	}
	switch {
	case response.StatusCode >= 200 && response.StatusCode < 300:
		return succeeded, string(body), nil
	case response.StatusCode >= 300 && response.StatusCode < 400:
		return warned, "Probe terminated redirects, Response body: " + string(body), nil
	}
	return failed, fmt.Sprintf("HTTP probe failed with statuscode: %d", response.StatusCode), nil
}

// StayLocal follows redirects within one host only: a probe or hook must not be
// led to others. It is for http.Client.CheckRedirect.
func StayLocal(next *http.Request, via []*http.Request) error {
	if next.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}

func (c *checker) tcp(ctx context.Context, address string, timeout time.Duration) (outcome, string, error) {
	dialer := *c.dialer
	dialer.Timeout = timeout
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return failed, err.Error(), nil
	}
	if err := conn.Close(); err != nil {
		return failed, err.Error(), nil
	}
	return succeeded, "", nil
}

// NewRequest makes the request of an HTTP probe or hook. purpose becomes part
// of the user agent.
func NewRequest(ctx context.Context, action *v1.HTTPGetAction, container *v1.Container, podIP, purpose string) (*http.Request, error) {
	port, err := resolvePort(action.Port, container)
	if err != nil {
		return nil, err
	}
	scheme := strings.ToLower(string(action.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	u, err := url.Parse(action.Path)
	if err != nil {
		u = &url.URL{Path: action.Path}
	}
	u.Scheme, u.Host = scheme, net.JoinHostPort(orDefault(action.Host, podIP), strconv.Itoa(port))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for _, h := range action.HTTPHeaders {
		request.Header.Add(h.Name, h.Value)
	}
	if request.Header.Get("User-Agent") == "" {
		request.Header.Set("User-Agent", fmt.Sprintf(userAgent, purpose))
	}
	if values, set := request.Header["Accept"]; !set {
		request.Header.Set("Accept", "*/*")
	} else if len(values) == 1 && values[0] == "" {
		request.Header.Del("Accept")
	}
	if host := request.Header.Get("Host"); host != "" {
		request.Host = host
	}
	return request, nil
}

func resolvePort(port intstr.IntOrString, container *v1.Container) (int, error) {
	number := port.IntValue()
	if port.Type == intstr.String {
		for _, p := range container.Ports {
			if p.Name == port.StrVal {
				number = int(p.ContainerPort)
			}
		}
		if number == 0 {
			return 0, fmt.Errorf("port %s not found", port.StrVal)
		}
	}
	if number < 1 || number > 65535 {
		return 0, fmt.Errorf("invalid port number: %v", number)
	}
	return number, nil
}

func orDefault(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}
