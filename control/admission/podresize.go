package admission

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	corelisters "k8s.io/client-go/listers/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// podResize refuses resizes that the pod's node can never grant (Kubernetes' PodResizeValidator).
type podResize struct {
	operations
	nodes  corelisters.NodeLister
	synced func() bool
}

func newPodResize(c Config) *podResize {
	informer := c.Informers.Core().V1().Nodes()
	return &podResize{on(admission.Update), informer.Lister(), informer.Informer().HasSynced}
}

var _ admission.ValidationInterface = (*podResize)(nil)

// Validate implements admission.ValidationInterface.
func (p *podResize) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() != corev1.Resource("pods") || a.GetSubresource() != "resize" {
		return nil
	}
	pod, ok := a.GetObject().(*corev1.Pod)
	old, okOld := a.GetOldObject().(*corev1.Pod)
	if !ok || !okOld || pod.Spec.NodeName == "" || pod.Generation == old.Generation {
		return nil
	}
	if err := ready(ctx, a, p.synced); err != nil {
		return err
	}
	node, err := p.nodes.Get(pod.Spec.NodeName)
	if apierrors.IsNotFound(err) {
		return forbidden(a, "node %q not found", pod.Spec.NodeName)
	}
	if err != nil {
		return forbidden(a, "failed to get node %q: %w", pod.Spec.NodeName, err)
	}
	if system, known := node.Labels[corev1.LabelOSStable]; known && system != "linux" {
		return withCause(forbidden(a, "pod resize is only supported on linux nodes, node %q is %q", node.Name, system), "UnsupportedPlatform")
	}
	if err := exceeds(pod, node.Status.Allocatable); err != nil {
		return withCause(admission.NewForbidden(a, err), "NodeCapacity")
	}
	return nil
}

func exceeds(pod *corev1.Pod, allocatable corev1.ResourceList) error {
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	var short []string
	if asked, has := requests.Cpu(), allocatable.Cpu(); asked.Cmp(*has) > 0 {
		short = append(short, fmt.Sprintf("cpu, requested: %d, allocatable: %d", asked.MilliValue(), has.MilliValue()))
	}
	if asked, has := requests.Memory(), allocatable.Memory(); asked.Cmp(*has) > 0 {
		short = append(short, fmt.Sprintf("memory, requested: %d, allocatable: %d", asked.Value(), has.Value()))
	}
	if len(short) == 0 {
		return nil
	}
	return fmt.Errorf("node didn't have enough allocatable resources: %s", strings.Join(short, "; "))
}

// withCause adds to a refusal what programs tell it by.
func withCause(err error, cause metav1.CauseType) error {
	var status *apierrors.StatusError
	if errors.As(err, &status) && status.ErrStatus.Details != nil {
		status.ErrStatus.Details.Causes = append(status.ErrStatus.Details.Causes, metav1.StatusCause{Type: cause})
	}
	return err
}
