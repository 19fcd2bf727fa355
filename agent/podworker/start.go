package podworker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/agent/criconfig"
	"github.com/skiff-run/skiff/agent/downward"
	"github.com/skiff-run/skiff/agent/environ"
	"github.com/skiff-run/skiff/agent/event"
	"github.com/skiff-run/skiff/agent/image"
	"github.com/skiff-run/skiff/agent/plan"
	"github.com/skiff-run/skiff/agent/podstate"
)

// Reasons of containers that wait because they could not be started.
const (
	reasonConfig    = "CreateContainerConfigError"
	reasonCreate    = "CreateContainerError"
	reasonRun       = "RunContainerError"
	reasonPostStart = "PostStartHookError"
)

// retryStart is how long to wait after a failure before trying again.
const retryStart = 10 * time.Second

// startContainer brings one container from its spec to running. Failures are
// noted; the user learns of them by event and by the container's state.
func (w *worker) startContainer(ctx context.Context, pod *v1.Pod, state *podstate.Pod, s *plan.Start, sandboxID string, sandbox *runtimeapi.PodSandboxConfig, ips []string) {
	spec := s.Container
	if state.Latest(spec.Name) == nil {
		s.Attempt = attemptsLogged(filepath.Join(sandbox.LogDirectory, spec.Name))
	}
	ref := event.Container(pod, spec.Name)
	fail := func(reason string, err error, after time.Duration) {
		if ctx.Err() != nil {
			return
		}
		message := status.Convert(err).Message()
		w.Events.Eventf(ref, v1.EventTypeWarning, event.Failed, "Error: %v", message)
		w.setFailed(spec.Name, plan.Failed{Reason: reason, Message: message, RetryAt: w.Now().Add(after)})
	}
	img, err := w.Images.Ensure(ctx, pod, spec, w.pullSecrets(pod), sandbox)
	if err == nil {
		err = w.ensureImageVolumes(ctx, pod, spec, sandbox)
	}
	if err != nil {
		var failure *image.Failure
		if errors.As(err, &failure) && ctx.Err() == nil {
			if failure.Reason != "ErrImagePull" {
				w.Events.Eventf(ref, v1.EventTypeWarning, event.Failed, "Error: %s", failure.Reason)
			}
			w.setFailed(spec.Name, plan.Failed{Reason: failure.Reason, Message: failure.Message, RetryAt: failure.RetryAt})
		} else {
			fail(reasonCreate, err, retryStart)
		}
		return
	}
	config, err := w.containerConfig(ctx, pod, state, s, img, ips)
	if err != nil {
		fail(reasonConfig, err, retryStart)
		return
	}
	if s.Replaces != "" {
		if err := w.Runtime.RemoveContainer(ctx, s.Replaces); err != nil {
			fail(reasonCreate, fmt.Errorf("remove a container that was never started: %w", err), retryStart)
			return
		}
	}
	id, err := w.Runtime.CreateContainer(ctx, sandboxID, config, sandbox)
	if err != nil {
		fail(reasonCreate, err, retryStart)
		return
	}
	w.Events.Eventf(ref, v1.EventTypeNormal, event.Created, "Container created")
	if err := w.Runtime.StartContainer(ctx, id); err != nil {
		fail(reasonRun, err, w.delayAfterFailedStart(ctx, id))
		return
	}
	w.Events.Eventf(ref, v1.EventTypeNormal, event.Started, "Container started")
	w.clearFailed(spec.Name)
	w.linkLog(pod, spec.Name, id, filepath.Join(sandbox.LogDirectory, config.LogPath))
	if spec.Lifecycle == nil || spec.Lifecycle.PostStart == nil || s.Ephemeral {
		return
	}
	w.signal()
	if message, err := w.Hooks.Run(ctx, pod, spec, id, first(ips), spec.Lifecycle.PostStart); err != nil && ctx.Err() == nil {
		// The message may hold secrets and stays out of the event.
		w.Events.Eventf(ref, v1.EventTypeWarning, event.FailedPostStart, "PostStartHook failed")
		w.stopContainer(ctx, pod, &podstate.Container{ID: id, Name: spec.Name, State: podstate.Running}, ips, gracePeriod(pod), "FailedPostStartHook", nil)
		w.setFailed(spec.Name, plan.Failed{Reason: reasonPostStart, Message: message, RetryAt: w.Now()})
	}
}

// delayAfterFailedStart is zero when the runtime counts the container as ended,
// because then the back-off between restarts applies.
func (w *worker) delayAfterFailedStart(ctx context.Context, id string) time.Duration {
	response, err := w.Runtime.ContainerStatus(ctx, id, false)
	if err == nil && response.GetStatus().GetState() == runtimeapi.ContainerState_CONTAINER_EXITED {
		return 0
	}
	return retryStart
}

// containerConfig collects everything the container is made from.
func (w *worker) containerConfig(ctx context.Context, pod *v1.Pod, state *podstate.Pod, s *plan.Start, img image.Image, ips []string) (*runtimeapi.ContainerConfig, error) {
	services, err := w.Node.Services(ctx)
	if err != nil {
		return nil, err
	}
	vars, err := environ.Make(environ.Input{
		Pod: pod, Container: s.Container, Objects: w.Objects, Files: podFiles{w, pod}, Services: environ.VisibleServices(pod, services),
		Addresses: downward.Addresses{PodIPs: ips, HostIPs: w.Node.HostIPs()}, Allocatable: downward.Bounds(pod, w.Node.Allocatable()),
	})
	if err != nil {
		return nil, err
	}
	hosts, err := w.writeHosts(pod, ips)
	if err != nil {
		return nil, err
	}
	message, err := w.messageFile(pod, s)
	if err != nil {
		return nil, err
	}
	mounts, err := w.CRI.Mounts(pod, s.Container, subPaths{w.Volumes}, vars, hosts, message)
	if err != nil {
		return nil, err
	}
	devices, err := criconfig.Devices(pod, s.Container, w.Volumes.Device)
	if err != nil {
		return nil, err
	}
	target := ""
	if s.Target != "" {
		latest := state.Latest(s.Target)
		if latest == nil || latest.State != podstate.Running {
			return nil, fmt.Errorf("unable to find target container %q", s.Target)
		}
		target = latest.ID
	}
	config, err := w.CRI.Container(criconfig.Container{
		Pod: pod, Spec: s.Container, Vars: vars, ImageRef: img.Ref, ImageUser: img.User, ImageUsername: img.Username, Mounts: mounts, Devices: devices, Target: target,
		Record: podstate.NewRecord(pod, s.Container, s.Attempt, s.Backoff, message),
	})
	if err != nil || w.Devices == nil {
		return config, err
	}
	return config, w.Devices.Inject(ctx, pod, s.Container.Name, config)
}

// messageFile makes the empty file a container leaves its last words in.
func (w *worker) messageFile(pod *v1.Pod, s *plan.Start) (string, error) {
	if s.Container.TerminationMessagePath == "" {
		return "", nil
	}
	dir := filepath.Join(w.Volumes.PodDir(pod.UID), "containers", s.Container.Name)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", fmt.Errorf("make the directory of termination messages: %w", err)
	}
	path := filepath.Join(dir, strconv.Itoa(s.Attempt))
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		return "", fmt.Errorf("make the file of the termination message: %w", err)
	}
	// Any user of the container may write it, whatever the umask is.
	if err := os.Chmod(path, 0o666); err != nil {
		return "", fmt.Errorf("open the file of the termination message: %w", err)
	}
	return path, nil
}

// attemptsLogged counts the attempts at a container of which nothing but logs is
// left, so that no log is written over and the restarts go on from there.
func attemptsLogged(dir string) int {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	next := 0
	for _, e := range entries {
		// 3.log, and 3.log.TIME when it was rotated.
		number, _, found := strings.Cut(e.Name(), ".log")
		if attempt, err := strconv.Atoi(number); found && err == nil && !e.IsDir() {
			next = max(next, attempt+1)
		}
	}
	return next
}

// linkLog makes the link by which log collectors find the container's log.
func (w *worker) linkLog(pod *v1.Pod, container, id, target string) {
	path := filepath.Join(w.ContainerLogsDir, logLink(pod, container, id))
	if err := os.Symlink(target, path); err != nil && !errors.Is(err, fs.ErrExist) {
		w.Logger.Warn("link the container's log", "pod", pod.Name, "namespace", pod.Namespace, "container", container, "error", err)
	}
}

// logLink is the name of a log's link; names longer than a file name may be
// lose what is in the middle.
func logLink(pod *v1.Pod, container, id string) string {
	const suffix, limit = ".log", 255
	head := fmt.Sprintf("%s_%s_%s", pod.Name, pod.Namespace, container)
	tail := "-" + id + suffix
	if len(head)+len(tail) > limit {
		head = strings.TrimRight(head[:limit-len(tail)], "-_.")
	}
	return head + tail
}

// pullSecrets reads the pod's pull secrets; a missing one is reported and left out.
func (w *worker) pullSecrets(pod *v1.Pod) []*v1.Secret {
	var secrets []*v1.Secret
	var missing []string
	for _, ref := range pod.Spec.ImagePullSecrets {
		if ref.Name == "" {
			continue
		}
		secret, err := w.Objects.Secret(pod.Namespace, ref.Name)
		if err != nil {
			missing = append(missing, ref.Name)
			continue
		}
		secrets = append(secrets, secret)
	}
	if len(missing) > 0 {
		w.Events.Eventf(event.Pod(pod), v1.EventTypeWarning, event.PullSecretMissing,
			"Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", strings.Join(missing, ", "))
	}
	return secrets
}

// podFiles finds the volumes of one pod for env files.
type podFiles struct {
	w   *worker
	pod *v1.Pod
}

func (f podFiles) VolumePath(name string) (string, bool) { return f.w.Volumes.Path(f.pod, name) }

// subPaths fits the volume manager to what mounts need.
type subPaths struct{ Volumes }

func (s subPaths) SubPath(pod *v1.Pod, volumePath, volume, container string, index int, sub string) (string, error) {
	return s.Volumes.SubPath(pod.UID, volumePath, volume, container, index, sub)
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
