package admission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/warning"
	corelisters "k8s.io/client-go/listers/core/v1"
	podsecurity "k8s.io/pod-security-admission/admission"
	"k8s.io/pod-security-admission/admission/api/load"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/metrics"
	"k8s.io/pod-security-admission/policy"
)

// podSecurity enforces the pod security standards that namespaces ask for with
// their labels.
type podSecurity struct {
	operations
	delegate *podsecurity.Admission
	synced   func() bool
}

// namespaces and pods read through listers.
type (
	namespaceGetter struct{ corelisters.NamespaceLister }
	podLister       struct{ corelisters.PodLister }
)

// GetNamespace implements podsecurity.NamespaceGetter.
func (n namespaceGetter) GetNamespace(_ context.Context, name string) (*corev1.Namespace, error) {
	return n.Get(name)
}

// ListPods implements podsecurity.PodLister.
func (p podLister) ListPods(_ context.Context, namespace string) ([]*corev1.Pod, error) {
	return p.Pods(namespace).List(labels.Everything())
}

// unrecorded drops the library's own metrics.
type unrecorded struct{}

func (unrecorded) RecordEvaluation(metrics.Decision, api.LevelVersion, metrics.Mode, api.Attributes) {
}
func (unrecorded) RecordExemption(api.Attributes)   {}
func (unrecorded) RecordError(bool, api.Attributes) {}

func newPodSecurity(c Config) (*podSecurity, error) {
	configuration, err := load.LoadFromData(nil)
	if err != nil {
		return nil, fmt.Errorf("pod security defaults: %w", err)
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, fmt.Errorf("pod security checks: %w", err)
	}
	namespaces := c.Informers.Core().V1().Namespaces()
	delegate := &podsecurity.Admission{
		Configuration: configuration, Evaluator: evaluator, Metrics: unrecorded{}, PodSpecExtractor: podsecurity.DefaultPodSpecExtractor{},
		NamespaceGetter: namespaceGetter{namespaces.Lister()}, PodLister: podLister{c.Informers.Core().V1().Pods().Lister()},
	}
	if err := delegate.CompleteConfiguration(); err != nil {
		return nil, fmt.Errorf("pod security: %w", err)
	}
	if err := delegate.ValidateConfiguration(); err != nil {
		return nil, fmt.Errorf("pod security: %w", err)
	}
	return &podSecurity{on(admission.Create, admission.Update), delegate, namespaces.Informer().HasSynced}, nil
}

// Validate implements admission.ValidationInterface.
func (p *podSecurity) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	resource := a.GetResource().GroupResource()
	if resource != (schema.GroupResource{Resource: "namespaces"}) && resource != (schema.GroupResource{Resource: "pods"}) &&
		!p.delegate.PodSpecExtractor.HasPodSpec(resource) {
		return nil
	}
	if err := ready(ctx, a, p.synced); err != nil {
		return err
	}
	response := p.delegate.Validate(ctx, attributes{a})
	for _, text := range response.Warnings {
		warning.AddWarning(ctx, "", text)
	}
	for key, value := range response.AuditAnnotations {
		audit.AddAuditAnnotation(ctx, "pod-security.kubernetes.io/"+key, value)
	}
	if response.Allowed {
		return nil
	}
	refusal, ok := admission.NewForbidden(a, fmt.Errorf("not allowed by the namespace's pod security level")).(*apierrors.StatusError)
	if result := response.Result; ok && result != nil {
		if result.Message != "" {
			refusal.ErrStatus.Message = result.Message
		}
		if result.Reason != "" {
			refusal.ErrStatus.Reason = result.Reason
		}
		if result.Details != nil {
			refusal.ErrStatus.Details = result.Details
		}
		if result.Code != 0 {
			refusal.ErrStatus.Code = result.Code
		}
	}
	return refusal
}
