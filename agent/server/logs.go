package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/agent/containerlog"
)

func (s *Server) containerLogs(w http.ResponseWriter, r *http.Request) {
	pod, found := s.Pods.Pod(r.PathValue("namespace"), r.PathValue("pod"))
	if !found {
		http.Error(w, fmt.Sprintf("pod %q does not exist", r.PathValue("pod")), http.StatusNotFound)
		return
	}
	options, err := logOptions(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if name := r.PathValue("container"); !hasContainer(pod, name) {
		http.Error(w, fmt.Sprintf("container %q not found in pod %q", name, pod.Name), http.StatusNotFound)
		return
	}
	id, err := logContainer(pod, r.PathValue("container"), options.Previous)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	response, err := s.Runtime.ContainerStatus(r.Context(), id, false)
	if err != nil {
		http.Error(w, fmt.Sprintf("failed to try resolving symlinks in path: container %s: %v", id, err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	out := &flusher{w: w, control: http.NewResponseController(w)}
	var stdout, stderr io.Writer = out, out
	switch {
	case options.Stream != nil && *options.Stream == v1.LogStreamStdout:
		stderr = nil
	case options.Stream != nil && *options.Stream == v1.LogStreamStderr:
		stdout = nil
	}
	if options.Follow {
		// The client sees that the stream is open before the first line.
		_ = out.control.Flush()
	}
	err = containerlog.Read(r.Context(), response.GetStatus().GetLogPath(), containerlog.NewOptions(options, time.Now()), stdout, stderr, func(ctx context.Context) bool {
		now, err := s.Runtime.ContainerStatus(ctx, id, false)
		return err == nil && now.GetStatus().GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING
	})
	if err != nil && !out.wrote {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// hasContainer says whether the pod's spec has a container of that name.
func hasContainer(pod *v1.Pod, name string) bool {
	for _, containers := range [][]v1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			if containers[i].Name == name {
				return true
			}
		}
	}
	return slices.ContainsFunc(pod.Spec.EphemeralContainers, func(c v1.EphemeralContainer) bool { return c.Name == name })
}

// flusher sends every line at once.
type flusher struct {
	w       io.Writer
	control *http.ResponseController
	wrote   bool
}

func (f *flusher) Write(p []byte) (int, error) {
	f.wrote = true
	n, err := f.w.Write(p)
	if err == nil {
		err = f.control.Flush()
	}
	return n, err
}

// logContainer finds the container whose log is asked for.
func logContainer(pod *v1.Pod, name string, previous bool) (string, error) {
	status := containerStatus(pod, name)
	if status == nil {
		return "", fmt.Errorf("container %q in pod %q is not available", name, pod.Name)
	}
	last := status.LastTerminationState.Terminated
	switch {
	case previous:
		if last == nil || last.ContainerID == "" {
			return "", fmt.Errorf("previous terminated container %q in pod %q not found", name, pod.Name)
		}
		return trimID(last.ContainerID), nil
	case status.State.Running != nil:
		return trimID(status.ContainerID), nil
	case status.State.Terminated != nil && status.State.Terminated.ContainerID != "":
		return trimID(status.State.Terminated.ContainerID), nil
	case last != nil && last.ContainerID != "":
		return trimID(last.ContainerID), nil
	}
	if waiting := status.State.Waiting; waiting != nil {
		switch waiting.Reason {
		case "ErrImagePull":
			return "", fmt.Errorf("container %q in pod %q is waiting to start: image can't be pulled", name, pod.Name)
		case "ImagePullBackOff":
			return "", fmt.Errorf("container %q in pod %q is waiting to start: trying and failing to pull image", name, pod.Name)
		}
		return "", fmt.Errorf("container %q in pod %q is waiting to start: %s", name, pod.Name, waiting.Reason)
	}
	return "", fmt.Errorf("container %q in pod %q is waiting to start - no logs yet", name, pod.Name)
}

// logOptions reads the query of the API's PodLogOptions.
func logOptions(q url.Values) (*v1.PodLogOptions, error) {
	o := &v1.PodLogOptions{}
	flag := func(name string) (bool, error) {
		if !q.Has(name) {
			return false, nil
		}
		if q.Get(name) == "" {
			return true, nil
		}
		return strconv.ParseBool(q.Get(name))
	}
	number := func(name string) (*int64, error) {
		if q.Get(name) == "" || (name == "tailLines" && q.Get(name) == "all") {
			return nil, nil
		}
		n, err := strconv.ParseInt(q.Get(name), 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%s: must be a number of 0 or more, not %q", name, q.Get(name))
		}
		return &n, nil
	}
	var err error
	for name, into := range map[string]*bool{"follow": &o.Follow, "previous": &o.Previous, "timestamps": &o.Timestamps} {
		if *into, err = flag(name); err != nil {
			return nil, fmt.Errorf("%s: must be true or false, not %q", name, q.Get(name))
		}
	}
	for name, into := range map[string]**int64{"tailLines": &o.TailLines, "limitBytes": &o.LimitBytes, "sinceSeconds": &o.SinceSeconds} {
		if *into, err = number(name); err != nil {
			return nil, err
		}
	}
	if text := q.Get("sinceTime"); text != "" {
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, fmt.Errorf("sinceTime: %w", err)
		}
		since := metav1.NewTime(t)
		o.SinceTime = &since
	}
	if text := q.Get("stream"); text != "" {
		if text != v1.LogStreamAll && text != v1.LogStreamStdout && text != v1.LogStreamStderr {
			return nil, fmt.Errorf("stream: must be All, Stdout or Stderr, not %q", text)
		}
		o.Stream = &text
	}
	return o, nil
}
