package podworker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/downward"
	"github.com/skiff-run/skiff/agent/event"
	"github.com/skiff-run/skiff/agent/hostfiles"
	"github.com/skiff-run/skiff/agent/plan"
	"github.com/skiff-run/skiff/agent/podstate"
	"github.com/skiff-run/skiff/agent/volume"
)

// announceBackoff tells the user once per exit that a container is held back.
func (w *worker) announceBackoff(pod *v1.Pod, state *podstate.Pod, p *plan.Plan) {
	for name, wait := range p.Waiting {
		latest := state.Latest(name)
		if !wait.CrashLoop || latest == nil || w.announced[name] == latest.ID {
			continue
		}
		w.announced[name] = latest.ID
		w.Events.Eventf(event.Container(pod, name), v1.EventTypeWarning, event.BackOff, "Back-off restarting failed container %s in pod %s", name, plan.FormatPod(pod))
	}
}

// perform carries out a plan. Whatever fails is noted with a time to try
// again; the next look at the pod decides anew.
func (w *worker) perform(ctx context.Context, pod *v1.Pod, state *podstate.Pod, p *plan.Plan, stale bool) {
	if len(p.Reset) > 0 {
		w.reset(ctx, pod, state, p.Reset)
		return
	}
	if p.StopPod {
		w.Events.Eventf(event.Pod(pod), v1.EventTypeNormal, event.SandboxChanged, "Pod sandbox changed, it will be killed and re-created.")
		w.stopPod(ctx, pod, state, gracePeriod(pod))
		if ctx.Err() != nil {
			return
		}
	}
	sandboxID, attempt, ips := p.SandboxID, p.SandboxAttempt, w.podIPs(pod, state)
	if current := state.Current(); current != nil && !p.CreateSandbox {
		attempt = current.Attempt
	}
	switch {
	case p.CreateSandbox:
		var err error
		if sandboxID, ips, err = w.createSandbox(ctx, pod, p); err != nil {
			return
		}
		// The pod's address is reported now, while images are pulled: whoever
		// enforces network policies has to know it before the first container runs.
		w.signal()
		// What to start in it is decided with the sandbox in place.
		next := plan.Compute(plan.Input{
			Pod: pod, Probes: w.Probes, Now: w.Now(), Failed: w.look().failed, Actuated: w.look().actuated,
			State: withSandbox(state, podstate.Sandbox{ID: sandboxID, Ready: true, Attempt: p.SandboxAttempt, CreatedAt: w.Now(), HostNetwork: pod.Spec.HostNetwork, IPs: ips}),
		})
		p = &next
	case stale || len(p.Start) > 0:
		if err := w.setUpVolumes(ctx, pod, ips); err != nil && len(p.Start) > 0 {
			w.setFailed(plan.SandboxKey, plan.Failed{RetryAt: w.Now().Add(w.retry.next())})
			return
		}
		w.retry.reset()
		w.clearFailed(plan.SandboxKey)
	}
	for _, k := range p.Kill {
		if c := state.ByID(k.ContainerID); c != nil {
			grace := gracePeriod(pod)
			// The time the user gave a deletion counts more than a probe's.
			if k.GracePeriod != nil && pod.DeletionGracePeriodSeconds == nil {
				grace = *k.GracePeriod
			}
			w.stopContainer(ctx, pod, c, ips, grace, k.Message, nil)
		}
	}
	if p.Resize {
		w.resize(ctx, pod, afterKills(state, p.Kill))
	}
	if len(p.Start) == 0 {
		return
	}
	sandbox, err := w.CRI.Sandbox(pod, attempt)
	if err != nil {
		w.setFailed(plan.SandboxKey, plan.Failed{Message: err.Error(), RetryAt: w.Now().Add(w.retry.next())})
		return
	}
	for i := range p.Start {
		if ctx.Err() != nil {
			return
		}
		w.startContainer(ctx, pod, state, &p.Start[i], sandboxID, sandbox, ips)
	}
	if len(state.Containers) > 0 {
		w.collect(ctx, pod)
	}
}

// afterKills leaves out what was killed.
func afterKills(state *podstate.Pod, kills []plan.Kill) *podstate.Pod {
	next := *state
	next.Containers = slices.DeleteFunc(slices.Clone(state.Containers), func(c podstate.Container) bool {
		return slices.ContainsFunc(kills, func(k plan.Kill) bool { return k.ContainerID == c.ID })
	})
	return &next
}

// reset takes the containers of a pod away that begins anew in its sandbox.
// Their logs stay; the next look at the pod starts the first ones.
func (w *worker) reset(ctx context.Context, pod *v1.Pod, state *podstate.Pod, list []plan.Reset) {
	ips := w.podIPs(pod, state)
	for _, r := range list {
		c := state.ByID(r.ContainerID)
		if r.Kill {
			w.stopContainer(ctx, pod, c, ips, 0, "killing", nil)
		}
		if ctx.Err() != nil {
			return
		}
		if err := w.removeContainer(ctx, pod, c); err != nil {
			w.Logger.Warn("restart all containers of a pod; trying again", "pod", pod.Name, "namespace", pod.Namespace, "container", c.Name, "error", err)
			return
		}
	}
}

func withSandbox(state *podstate.Pod, s podstate.Sandbox) *podstate.Pod {
	next := *state
	next.Sandboxes = []podstate.Sandbox{s}
	for _, old := range state.Sandboxes {
		old.Ready = false
		next.Sandboxes = append(next.Sandboxes, old)
	}
	return &next
}

// createSandbox makes everything the first container needs: cgroup,
// directories, volumes, and the sandbox itself.
func (w *worker) createSandbox(ctx context.Context, pod *v1.Pod, p *plan.Plan) (id string, ips []string, err error) {
	fail := func(reason, format string, err error) (string, []string, error) {
		if ctx.Err() == nil {
			w.Events.Eventf(event.Pod(pod), v1.EventTypeWarning, reason, format, err)
			w.setFailed(plan.SandboxKey, plan.Failed{Reason: reason, Message: err.Error(), RetryAt: w.Now().Add(w.retry.next())})
		}
		return "", nil, err
	}
	if err := w.Cgroups.SetPod(ctx, pod, w.CRI.Limits.Pod(pod)); err != nil {
		return fail("FailedCreatePodContainer", "unable to ensure pod container exists: %v", err)
	}
	if err := w.setUpVolumes(ctx, pod, nil); err != nil {
		w.setFailed(plan.SandboxKey, plan.Failed{RetryAt: w.Now().Add(w.retry.next())})
		return "", nil, err
	}
	config, err := w.CRI.Sandbox(pod, p.SandboxAttempt)
	if err != nil {
		return fail(event.FailedSandbox, "Failed to create pod sandbox: %v", err)
	}
	for _, warning := range w.CRI.DNSWarnings(pod) {
		w.Events.Eventf(event.Pod(pod), v1.EventTypeWarning, warning.Reason, "%s", warning.Message)
	}
	if err := os.MkdirAll(config.LogDirectory, 0o755); err != nil {
		return fail(event.FailedSandbox, "Failed to create pod sandbox: %v", fmt.Errorf("make the pod's log directory: %w", err))
	}
	handler := ""
	if w.Handler != nil {
		if handler, err = w.Handler(ctx, pod); err != nil {
			return fail(event.FailedSandbox, "Failed to create pod sandbox: %v", err)
		}
	}
	id, err = w.Runtime.RunPodSandbox(ctx, config, handler)
	if err != nil {
		return fail(event.FailedSandbox, "Failed to create pod sandbox: %v", err)
	}
	response, err := w.Runtime.PodSandboxStatus(ctx, id, false)
	if err != nil {
		return fail("FailedPodSandBoxStatus", "Unable to get pod sandbox status: %v", err)
	}
	w.retry.reset()
	w.clearFailed(plan.SandboxKey)
	if pod.Spec.HostNetwork {
		return id, w.Node.HostIPs(), nil
	}
	network := response.GetStatus().GetNetwork()
	if network.GetIp() != "" {
		ips = append(ips, network.GetIp())
	}
	for _, more := range network.GetAdditionalIps() {
		ips = append(ips, more.GetIp())
	}
	w.signal()
	return id, ips, nil
}

// setUpVolumes makes the volumes or brings their content up to date, and
// reports what is missing.
func (w *worker) setUpVolumes(ctx context.Context, pod *v1.Pod, ips []string) error {
	w.mu.Lock()
	// Changes from here on ask for another look.
	w.stale = false
	w.mu.Unlock()
	again, err := w.Volumes.SetUp(ctx, pod, w.volumeNode(pod, ips))
	w.mu.Lock()
	w.volumesAgain = again
	if err != nil {
		w.volumesAgain = w.Now().Add(volumeRetry)
	}
	w.mu.Unlock()
	if err == nil || ctx.Err() != nil {
		return err
	}
	for _, one := range flatten(err) {
		w.Events.Eventf(event.Pod(pod), v1.EventTypeWarning, event.FailedMount, "%v", one)
	}
	return err
}

// volumeRetry is when volumes of a running pod that could not be updated are
// looked at again.
const volumeRetry = time.Minute

func (w *worker) volumeNode(pod *v1.Pod, ips []string) volume.Node {
	return volume.Node{Addresses: downward.Addresses{PodIPs: ips, HostIPs: w.Node.HostIPs()}, Allocatable: downward.Bounds(pod, w.Node.Allocatable())}
}

func flatten(err error) []error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	return []error{err}
}

// writeHosts writes the pod's managed hosts file and returns its path.
func (w *worker) writeHosts(pod *v1.Pod, ips []string) (string, error) {
	path := filepath.Join(w.Volumes.PodDir(pod.UID), "etc-hosts")
	var content []byte
	if pod.Spec.HostNetwork {
		node, err := os.ReadFile(w.HostsFile)
		if err != nil {
			return "", fmt.Errorf("read the node's hosts file: %w", err)
		}
		content = hostfiles.HostNetworkHosts(node, pod.Spec.HostAliases)
	} else {
		hostname, domain := hostfiles.Hostname(pod, w.CRI.Resolver().ClusterDomain)
		content = hostfiles.Hosts(ips, hostname, domain, pod.Spec.HostAliases)
	}
	// Written in place: the file is mounted into containers that run.
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return "", fmt.Errorf("write the pod's hosts file: %w", err)
	}
	return path, nil
}
