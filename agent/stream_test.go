package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/skiff-run/skiff/internal/testenv"
)

// restConfig acts as the API server towards the agent.
func (m *machine) restConfig() *rest.Config {
	return &rest.Config{Host: fmt.Sprintf("https://127.0.0.1:%d", m.settings.Port), TLSClientConfig: rest.TLSClientConfig{
		Insecure: true, CertFile: filepath.Join(m.dir, "pki/apiserver-kubelet-client.crt"), KeyFile: filepath.Join(m.dir, "pki/apiserver-kubelet-client.key"),
	}}
}

func TestStreamsByWebSocket(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.ready()
	m.create(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: v1.PodSpec{
		RestartPolicy: v1.RestartPolicyAlways,
		Containers: []v1.Container{{
			Name: "app", Image: testImage, ImagePullPolicy: v1.PullIfNotPresent, Command: []string{"sh", "-c", "mkdir /tmp/www; echo served > /tmp/www/page; exec busybox httpd -f -p 8080 -h /tmp/www"},
		}},
	}})
	testenv.Eventually(t, 30*time.Second, func() bool { return isReady(m.pod("web")) }, "the pod is Ready")
	config := m.restConfig()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	exec := func(query string, o remotecommand.StreamOptions) error {
		t.Helper()
		executor, err := remotecommand.NewWebSocketExecutor(config, "GET", config.Host+"/exec/default/web/app?"+query)
		must(t, err)
		return executor.StreamWithContext(ctx, o)
	}
	t.Run("exec with an end of its input", func(t *testing.T) {
		var out bytes.Buffer
		err := exec("input=1&output=1&command=cat", remotecommand.StreamOptions{Stdin: strings.NewReader(strings.Repeat("line\n", 20000)), Stdout: &out})
		if err != nil || out.String() != strings.Repeat("line\n", 20000) {
			t.Errorf("%d bytes came back, %v", out.Len(), err)
		}
	})
	t.Run("exec with an exit code and both outputs", func(t *testing.T) {
		var out, errs bytes.Buffer
		err := exec("output=1&error=1&command=sh&command=-c&command="+url.QueryEscape("echo good; echo bad >&2; exit 3"), remotecommand.StreamOptions{Stdout: &out, Stderr: &errs})
		var code utilexec.CodeExitError
		if c, ok := err.(utilexec.CodeExitError); ok {
			code = c
		}
		if code.Code != 3 || out.String() != "good\n" || errs.String() != "bad\n" {
			t.Errorf("%q, %q, %v", out.String(), errs.String(), err)
		}
	})
	t.Run("exec with a terminal", func(t *testing.T) {
		// A terminal does not end before its user does.
		keys, typing := io.Pipe()
		defer typing.Close()
		go func() { _, _ = io.WriteString(typing, "echo $((6*7)); exit\n") }()
		var out bytes.Buffer
		err := exec("input=1&output=1&tty=1&command=sh", remotecommand.StreamOptions{Stdin: keys, Stdout: &out, Tty: true})
		if err != nil || !strings.Contains(out.String(), "\r\n42\r\n") {
			t.Errorf("%q, %v", out.String(), err)
		}
	})
	t.Run("a container that is none", func(t *testing.T) {
		executor, err := remotecommand.NewWebSocketExecutor(config, "GET", config.Host+"/exec/default/web/none?output=1&command=true")
		must(t, err)
		if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: io.Discard}); err == nil || !strings.Contains(err.Error(), `container not found ("none")`) {
			t.Errorf("exec in it: %v", err)
		}
	})
	t.Run("port-forward", func(t *testing.T) {
		target, err := url.Parse(config.Host + "/portForward/default/web")
		must(t, err)
		dialer, err := portforward.NewSPDYOverWebsocketDialer(target, config)
		must(t, err)
		stop, ready := make(chan struct{}), make(chan struct{})
		forwarder, err := portforward.New(dialer, []string{"0:8080"}, stop, ready, io.Discard, io.Discard)
		must(t, err)
		ended := make(chan error, 1)
		go func() { ended <- forwarder.ForwardPorts() }()
		select {
		case <-ready:
		case err := <-ended:
			t.Fatalf("port-forward ended: %v", err)
		}
		ports, err := forwarder.GetPorts()
		must(t, err)
		for range 3 {
			response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/page", ports[0].Local))
			must(t, err)
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err != nil || string(body) != "served\n" {
				t.Errorf("%q, %v", body, err)
			}
		}
		close(stop)
		if err := <-ended; err != nil {
			t.Errorf("port-forward ends with %v", err)
		}
	})
}
