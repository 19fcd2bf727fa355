package admission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/admission"
	schedulinglisters "k8s.io/client-go/listers/scheduling/v1"
	"k8s.io/utils/ptr"
)

// priority turns the name of a pod's priority class into its value and lets
// nobody set the value itself.
type priority struct {
	operations
	classes schedulinglisters.PriorityClassLister
	synced  func() bool
}

func newPriority(c Config) *priority {
	informer := c.Informers.Scheduling().V1().PriorityClasses()
	return &priority{on(admission.Create, admission.Update), informer.Lister(), informer.Informer().HasSynced}
}

// Admit implements admission.MutationInterface.
func (p *priority) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	pod, ok := a.GetObject().(*corev1.Pod)
	if !ok || !concerns(a, "", "pods") {
		return nil
	}
	if a.GetOperation() == admission.Update {
		// A client that does not know the fields keeps what was decided.
		if old, ok := a.GetOldObject().(*corev1.Pod); ok {
			if pod.Spec.Priority == nil {
				pod.Spec.Priority = old.Spec.Priority
			}
			if pod.Spec.PreemptionPolicy == nil {
				pod.Spec.PreemptionPolicy = old.Spec.PreemptionPolicy
			}
		}
		return nil
	}
	if err := ready(ctx, a, p.synced); err != nil {
		return err
	}
	value, policy, err := p.decide(pod)
	if err != nil {
		return admission.NewForbidden(a, err)
	}
	if pod.Spec.Priority != nil && *pod.Spec.Priority != value {
		return forbidden(a, "the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *pod.Spec.Priority, value)
	}
	pod.Spec.Priority = &value
	if pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy != policy {
		return forbidden(a, "the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *pod.Spec.PreemptionPolicy, policy)
	}
	pod.Spec.PreemptionPolicy = &policy
	return nil
}

// decide finds the class: the named one, else the cluster's default, else none.
func (p *priority) decide(pod *corev1.Pod) (int32, corev1.PreemptionPolicy, error) {
	var class *schedulingv1.PriorityClass
	if name := pod.Spec.PriorityClassName; name != "" {
		found, err := p.classes.Get(name)
		if err != nil {
			return 0, "", fmt.Errorf("no PriorityClass with name %v was found", name)
		}
		class = found
	} else {
		all, err := p.classes.List(labels.Everything())
		if err != nil {
			return 0, "", fmt.Errorf("failed to get default priority class: %w", err)
		}
		for _, each := range all {
			// Of several defaults the lowest counts.
			if each.GlobalDefault && (class == nil || each.Value < class.Value) {
				class = each
			}
		}
		if class != nil {
			pod.Spec.PriorityClassName = class.Name
		}
	}
	if class == nil {
		return 0, corev1.PreemptLowerPriority, nil
	}
	return class.Value, ptr.Deref(class.PreemptionPolicy, corev1.PreemptLowerPriority), nil
}
