package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/kubernetes"
	nodelisters "k8s.io/client-go/listers/node/v1"
)

// runtimeClass gives a pod what its runtime class demands: room for the runtime
// itself, and the nodes it is on.
type runtimeClass struct {
	operations
	classes nodelisters.RuntimeClassLister
	synced  func() bool
	client  kubernetes.Interface
}

func newRuntimeClass(c Config) *runtimeClass {
	informer := c.Informers.Node().V1().RuntimeClasses()
	return &runtimeClass{on(admission.Create), informer.Lister(), informer.Informer().HasSynced, c.Client}
}

// find returns the pod, and its class if it has one.
func (r *runtimeClass) find(ctx context.Context, a admission.Attributes) (*corev1.Pod, *nodev1.RuntimeClass, error) {
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok || !concerns(a, "", "pods") {
		return nil, nil, nil
	}
	if pod.Spec.RuntimeClassName == nil {
		return pod, nil, nil
	}
	if err := ready(ctx, a, r.synced); err != nil {
		return nil, nil, err
	}
	class, err := r.classes.Get(*pod.Spec.RuntimeClassName)
	if apierrors.IsNotFound(err) {
		// It may have been made a moment ago.
		class, err = r.client.NodeV1().RuntimeClasses().Get(ctx, *pod.Spec.RuntimeClassName, metav1.GetOptions{})
	}
	if apierrors.IsNotFound(err) {
		return nil, nil, forbidden(a, "pod rejected: RuntimeClass %q not found", *pod.Spec.RuntimeClassName)
	}
	return pod, class, err
}

// Admit implements admission.MutationInterface.
func (r *runtimeClass) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, class, err := r.find(ctx, a)
	if err != nil || class == nil {
		return err
	}
	if class.Overhead != nil {
		if len(pod.Spec.Overhead) > 0 && !equality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead) {
			return forbidden(a, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
		}
		pod.Spec.Overhead = class.Overhead.PodFixed.DeepCopy()
	}
	if class.Scheduling == nil {
		return nil
	}
	for key, value := range class.Scheduling.NodeSelector {
		if own, set := pod.Spec.NodeSelector[key]; set && own != value {
			return forbidden(a, "conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", key, value, key, own)
		}
		if pod.Spec.NodeSelector == nil {
			pod.Spec.NodeSelector = map[string]string{}
		}
		pod.Spec.NodeSelector[key] = value
	}
	pod.Spec.Tolerations = mergeTolerations(pod.Spec.Tolerations, class.Scheduling.Tolerations)
	return nil
}

// Validate implements admission.ValidationInterface.
func (r *runtimeClass) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, class, err := r.find(ctx, a)
	switch {
	case err != nil || pod == nil:
		return err
	case class != nil && class.Overhead != nil:
		if !equality.Semantic.DeepEqual(class.Overhead.PodFixed, pod.Spec.Overhead) {
			return forbidden(a, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
		}
	case pod.Spec.Overhead != nil:
		return forbidden(a, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
	}
	return nil
}

// mergeTolerations joins two lists without those that another one contains.
func mergeTolerations(first, second []corev1.Toleration) []corev1.Toleration {
	all := append(append([]corev1.Toleration(nil), first...), second...)
	var merged []corev1.Toleration
	for i := range all {
		redundant := false
		for j := range merged {
			redundant = redundant || contains(&merged[j], &all[i])
		}
		for j := i + 1; j < len(all); j++ {
			// Of two that say the same the first stays.
			redundant = redundant || (contains(&all[j], &all[i]) && !equality.Semantic.DeepEqual(all[j], all[i]))
		}
		if !redundant {
			merged = append(merged, all[i])
		}
	}
	return merged
}

// contains says whether wide tolerates everything that narrow does.
func contains(wide, narrow *corev1.Toleration) bool {
	if equality.Semantic.DeepEqual(wide, narrow) {
		return true
	}
	everyKey := wide.Key == "" && wide.Operator == corev1.TolerationOpExists
	if (wide.Key != narrow.Key && !everyKey) || (wide.Effect != narrow.Effect && wide.Effect != "") {
		return false
	}
	if limit := wide.TolerationSeconds; wide.Effect == corev1.TaintEffectNoExecute && limit != nil {
		if narrow.TolerationSeconds == nil || *narrow.TolerationSeconds > *limit {
			return false
		}
	}
	switch wide.Operator {
	case corev1.TolerationOpExists:
		return true
	case corev1.TolerationOpEqual, "":
		return narrow.Operator == corev1.TolerationOpEqual && narrow.Value == wide.Value
	}
	return false
}
