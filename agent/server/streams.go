package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	kubelettypes "k8s.io/kubelet/pkg/types"

	"github.com/skiff-run/skiff/agent/environ"
)

// adapter fits the runtime to the streaming library, which names pods and
// containers where the runtime wants their ids.
type adapter struct{ runtime Runtime }

func (a adapter) ExecInContainer(ctx context.Context, _, _, container string, cmd []string, in io.Reader, out, err io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	// Streams that end with the connection lose what the client has not read.
	defer closeAll(out, err)
	return a.runtime.Exec(ctx, container, cmd, in, out, err, tty, resize)
}

func (a adapter) AttachContainer(ctx context.Context, _, _, container string, in io.Reader, out, err io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	defer closeAll(out, err)
	return a.runtime.Attach(ctx, container, in, out, err, tty, resize)
}

func closeAll(streams ...io.WriteCloser) {
	for _, s := range streams {
		if s != nil {
			// An error means the client is gone already.
			_ = s.Close()
		}
	}
}

func (a adapter) PortForward(ctx context.Context, sandbox, _ string, port int32, stream io.ReadWriteCloser) error {
	return a.runtime.PortForward(ctx, sandbox, port, stream)
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	id, ok := s.running(w, r)
	if !ok {
		return
	}
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(w, r, adapter{s.Runtime}, "", "", id, r.URL.Query()["command"], options, streamIdle,
		remotecommand.DefaultStreamCreationTimeout, streaming.DefaultConfig.SupportedRemoteCommandProtocols)
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	id, ok := s.running(w, r)
	if !ok {
		return
	}
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeAttach(w, r, adapter{s.Runtime}, "", "", id, options, streamIdle,
		remotecommand.DefaultStreamCreationTimeout, streaming.DefaultConfig.SupportedRemoteCommandProtocols)
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	pod, ok := s.pod(w, r)
	if !ok {
		return
	}
	sandboxes, err := s.Runtime.ListPodSandbox(r.Context(), &runtimeapi.PodSandboxFilter{
		LabelSelector: map[string]string{kubelettypes.KubernetesPodUIDLabel: string(pod.UID)},
		State:         &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY},
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if len(sandboxes) == 0 {
		http.Error(w, fmt.Sprintf("failed to find sandbox for pod %q", pod.Name), http.StatusNotFound)
		return
	}
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, adapter{s.Runtime}, sandboxes[0].GetId(), string(pod.UID), options, streamIdle,
		remotecommand.DefaultStreamCreationTimeout, streaming.DefaultConfig.SupportedPortForwardProtocols)
}

// runCommand runs a command without streams and answers with its output.
func (s *Server) runCommand(w http.ResponseWriter, r *http.Request) {
	id, ok := s.running(w, r)
	if !ok {
		return
	}
	out := &output{w: w}
	command := environ.ExpandAll(strings.Fields(r.FormValue("cmd")), nil)
	if err := s.Runtime.Exec(r.Context(), id, command, nil, out, out, false, nil); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

type output struct{ w io.Writer }

func (o *output) Write(p []byte) (int, error) { return o.w.Write(p) }
func (o *output) Close() error                { return nil }

// pod finds the pod a request names.
func (s *Server) pod(w http.ResponseWriter, r *http.Request) (*v1.Pod, bool) {
	pod, ok := s.Pods.Pod(r.PathValue("namespace"), r.PathValue("pod"))
	if uid := r.PathValue("uid"); ok && uid != "" && pod.UID != types.UID(uid) {
		ok = false
	}
	if !ok {
		http.Error(w, "pod does not exist", http.StatusNotFound)
	}
	return pod, ok
}

// running finds the running container a request names.
func (s *Server) running(w http.ResponseWriter, r *http.Request) (string, bool) {
	pod, ok := s.pod(w, r)
	if !ok {
		return "", false
	}
	status := containerStatus(pod, r.PathValue("container"))
	if status == nil || status.State.Running == nil {
		http.Error(w, fmt.Sprintf("container not found (%q)", r.PathValue("container")), http.StatusInternalServerError)
		return "", false
	}
	return trimID(status.ContainerID), true
}

func containerStatus(pod *v1.Pod, name string) *v1.ContainerStatus {
	for _, statuses := range [][]v1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for i := range statuses {
			if statuses[i].Name == name {
				return &statuses[i]
			}
		}
	}
	return nil
}

func trimID(id string) string {
	_, bare, _ := strings.Cut(id, "://")
	return bare
}
