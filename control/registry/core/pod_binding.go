package core

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	storeerr "k8s.io/apiserver/pkg/storage/errors"
	"k8s.io/apiserver/pkg/util/dryrun"

	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

// podBinding is how a scheduler gives a pod its node. It is the only way to set spec.nodeName of a
// pod that exists, and works once.
type podBinding struct {
	store *genericregistry.Store
}

var (
	_ rest.NamedCreater                   = (*podBinding)(nil)
	_ rest.SubresourceObjectMetaPreserver = (*podBinding)(nil)
)

// New implements rest.Storage.
func (b *podBinding) New() runtime.Object { return &corev1.Binding{} }

// Destroy implements rest.Storage.
func (b *podBinding) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (b *podBinding) NamespaceScoped() bool { return true }

// PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate keeps uid and resourceVersion, which
// are preconditions here.
func (b *podBinding) PreserveRequestObjectMetaSystemFieldsOnSubresourceCreate() bool { return true }

// Create implements rest.NamedCreater.
func (b *podBinding) Create(ctx context.Context, name string, object runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	binding, ok := object.(*corev1.Binding)
	if !ok {
		return nil, errors.NewBadRequest(fmt.Sprintf("not a Binding object: %T", object))
	}
	if name != binding.Name {
		return nil, errors.NewBadRequest("name in URL does not match name in Binding object")
	}
	if errs := podspec.ValidateBinding(binding); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	if validate != nil {
		if err := validate(ctx, binding.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	if err := b.bind(ctx, binding, dryrun.IsDryRun(options.DryRun)); err != nil {
		return nil, err
	}
	return &metav1.Status{Status: metav1.StatusSuccess}, nil
}

func (b *podBinding) bind(ctx context.Context, binding *corev1.Binding, dryRun bool) error {
	key, err := b.store.KeyFunc(ctx, binding.Name)
	if err != nil {
		return err
	}
	conditions := &storage.Preconditions{}
	if binding.UID != "" {
		conditions.UID = &binding.UID
	}
	if binding.ResourceVersion != "" {
		conditions.ResourceVersion = &binding.ResourceVersion
	}
	err = b.store.Storage.GuaranteedUpdate(ctx, key, &corev1.Pod{}, false, conditions,
		storage.SimpleUpdate(func(object runtime.Object) (runtime.Object, error) {
			pod, ok := object.(*corev1.Pod)
			if !ok {
				return nil, fmt.Errorf("unexpected object: %T", object)
			}
			return assign(pod.DeepCopy(), binding)
		}), dryRun, nil)
	if err == nil {
		return nil
	}
	err = storeerr.InterpretUpdateError(storeerr.InterpretGetError(err, corev1.Resource("pods"), binding.Name), corev1.Resource("pods"), binding.Name)
	if _, isStatus := err.(*errors.StatusError); isStatus {
		return err
	}
	return errors.NewConflict(corev1.Resource("pods/binding"), binding.Name, err)
}

// assign gives the pod its node, with what else the scheduler decided.
func assign(pod *corev1.Pod, binding *corev1.Binding) (*corev1.Pod, error) {
	switch {
	case pod.DeletionTimestamp != nil:
		return nil, fmt.Errorf("pod %s is being deleted, cannot be assigned to a host", pod.Name)
	case pod.Spec.NodeName != "":
		return nil, fmt.Errorf("pod %v is already assigned to node %q", pod.Name, pod.Spec.NodeName)
	case len(pod.Spec.SchedulingGates) > 0:
		return nil, fmt.Errorf("pod %v has non-empty .spec.schedulingGates", pod.Name)
	}
	pod.Spec.NodeName = binding.Target.Name
	pod.Status.NominatedNodeName = ""
	if len(binding.Annotations) > 0 {
		pod.Annotations = merged(pod.Annotations, binding.Annotations)
	}
	if len(binding.Labels) > 0 {
		pod.Labels = merged(pod.Labels, binding.Labels)
	}
	podspec.SetCondition(&pod.Status, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, metav1.Now())
	return pod, nil
}

func merged(into, more map[string]string) map[string]string {
	if into == nil {
		into = map[string]string{}
	}
	maps.Copy(into, more)
	return into
}

// legacyBinding is the same at the path it had first: POST bindings.
type legacyBinding struct{ bindings *podBinding }

var (
	_ rest.Creater              = (*legacyBinding)(nil)
	_ rest.SingularNameProvider = (*legacyBinding)(nil)
)

// New implements rest.Storage.
func (b *legacyBinding) New() runtime.Object { return b.bindings.New() }

// Destroy implements rest.Storage.
func (b *legacyBinding) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (b *legacyBinding) NamespaceScoped() bool { return true }

// GetSingularName implements rest.SingularNameProvider.
func (b *legacyBinding) GetSingularName() string { return "binding" }

// Create implements rest.Creater.
func (b *legacyBinding) Create(ctx context.Context, object runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	binding, ok := object.(*corev1.Binding)
	if !ok {
		return nil, errors.NewBadRequest(fmt.Sprintf("not a Binding object: %T", object))
	}
	return b.bindings.Create(ctx, binding.Name, binding, validate, options)
}
