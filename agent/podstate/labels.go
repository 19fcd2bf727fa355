package podstate

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// Labels and annotations on sandboxes and containers, named as the kubelet
// names them so that log collectors and debugging tools find their way.
const (
	annotationHash           = "io.kubernetes.container.hash"
	annotationRestartCount   = "io.kubernetes.container.restartCount"
	annotationMessagePath    = "io.kubernetes.container.terminationMessagePath"
	annotationMessagePolicy  = "io.kubernetes.container.terminationMessagePolicy"
	annotationPreStopHandler = "io.kubernetes.container.preStopHandler"
	annotationGracePeriod    = "io.kubernetes.pod.terminationGracePeriod"
	annotationRestartBackoff = "skiff.dev/restart-backoff"
	annotationMessageFile    = "skiff.dev/termination-message-file"
)

// SandboxLabels are the labels of the pod's sandbox: the pod's own and the
// names by which it is found.
func SandboxLabels(pod *v1.Pod) map[string]string {
	labels := make(map[string]string, len(pod.Labels)+3)
	for k, v := range pod.Labels {
		labels[k] = v
	}
	labels[kubelettypes.KubernetesPodNameLabel] = pod.Name
	labels[kubelettypes.KubernetesPodNamespaceLabel] = pod.Namespace
	labels[kubelettypes.KubernetesPodUIDLabel] = string(pod.UID)
	return labels
}

// ContainerLabels are the labels by which a container is found.
func ContainerLabels(pod *v1.Pod, container *v1.Container) map[string]string {
	return map[string]string{
		kubelettypes.KubernetesPodNameLabel:       pod.Name,
		kubelettypes.KubernetesPodNamespaceLabel:  pod.Namespace,
		kubelettypes.KubernetesPodUIDLabel:        string(pod.UID),
		kubelettypes.KubernetesContainerNameLabel: container.Name,
	}
}

// Record is what the agent remembers about a container on the container itself.
type Record struct {
	// Attempt counts the restarts.
	Attempt int
	// Hash identifies the part of the spec whose change restarts the container.
	Hash string
	// Backoff is how long to wait after this container exits before the next attempt.
	Backoff time.Duration
	// MessagePath is the termination message's path in the container, MessageFile on the node.
	MessagePath, MessageFile string
	MessagePolicy            v1.TerminationMessagePolicy
	// GracePeriod of the pod, for pods the API no longer knows.
	GracePeriod *int64
	// PreStop of the container, for pods the API no longer knows.
	PreStop *v1.LifecycleHandler
}

// NewRecord describes the attempt-th container made from the spec.
func NewRecord(pod *v1.Pod, container *v1.Container, attempt int, backoff time.Duration, messageFile string) Record {
	r := Record{
		Attempt: attempt, Hash: Hash(container), Backoff: backoff,
		MessagePath: container.TerminationMessagePath, MessageFile: messageFile, MessagePolicy: container.TerminationMessagePolicy,
		GracePeriod: pod.Spec.TerminationGracePeriodSeconds,
	}
	if container.Lifecycle != nil {
		r.PreStop = container.Lifecycle.PreStop
	}
	return r
}

// Annotations encodes the record.
func (r Record) Annotations() map[string]string {
	a := map[string]string{
		annotationHash:           r.Hash,
		annotationRestartCount:   strconv.Itoa(r.Attempt),
		annotationMessagePath:    r.MessagePath,
		annotationMessageFile:    r.MessageFile,
		annotationMessagePolicy:  string(r.MessagePolicy),
		annotationRestartBackoff: r.Backoff.String(),
	}
	if r.GracePeriod != nil {
		a[annotationGracePeriod] = strconv.FormatInt(*r.GracePeriod, 10)
	}
	if r.PreStop != nil {
		if data, err := json.Marshal(r.PreStop); err == nil {
			a[annotationPreStopHandler] = string(data)
		}
	}
	return a
}

// recordFrom decodes annotations; what is missing or damaged keeps its zero
// value, because a container of a foreign or older maker must still be stopped.
func recordFrom(a map[string]string) Record {
	r := Record{
		Hash: a[annotationHash], MessagePath: a[annotationMessagePath], MessageFile: a[annotationMessageFile],
		MessagePolicy: v1.TerminationMessagePolicy(a[annotationMessagePolicy]),
	}
	r.Attempt, _ = strconv.Atoi(a[annotationRestartCount])
	r.Backoff, _ = time.ParseDuration(a[annotationRestartBackoff])
	if seconds, err := strconv.ParseInt(a[annotationGracePeriod], 10, 64); err == nil {
		r.GracePeriod = &seconds
	}
	if text := a[annotationPreStopHandler]; text != "" {
		handler := &v1.LifecycleHandler{}
		if json.Unmarshal([]byte(text), handler) == nil {
			r.PreStop = handler
		}
	}
	return r
}

// Hash identifies what a running container cannot take over from a changed
// spec. Only the image is mutable in a pod's container without a restart being
// asked for otherwise, as in the kubelet.
func Hash(container *v1.Container) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s\x00%s", container.Name, container.Image)
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}

// UIDOf returns the pod UID in a sandbox's or container's labels.
func UIDOf(labels map[string]string) types.UID {
	return types.UID(labels[kubelettypes.KubernetesPodUIDLabel])
}
