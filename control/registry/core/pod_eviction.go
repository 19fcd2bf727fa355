package core

import (
	"context"
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

var evictionVersion = policyv1.SchemeGroupVersion.WithKind("Eviction")

// podEviction deletes a pod on behalf of somebody who needs its place, and says so in its status.
// There are no disruption budgets yet that could object.
type podEviction struct {
	pods   *registry.Store[*corev1.Pod]
	status *registry.Subresource
}

var (
	_ rest.NamedCreater             = (*podEviction)(nil)
	_ rest.GroupVersionKindProvider = (*podEviction)(nil)
	_ rest.GroupVersionAcceptor     = (*podEviction)(nil)
)

// New implements rest.Storage.
func (e *podEviction) New() runtime.Object { return &policyv1.Eviction{} }

// Destroy implements rest.Storage.
func (e *podEviction) Destroy() {}

// GroupVersionKind implements rest.GroupVersionKindProvider: evictions are of another group.
func (e *podEviction) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return evictionVersion
}

// AcceptsGroupVersion implements rest.GroupVersionAcceptor.
func (e *podEviction) AcceptsGroupVersion(version schema.GroupVersion) bool {
	return version == policyv1.SchemeGroupVersion
}

// Create implements rest.NamedCreater.
func (e *podEviction) Create(ctx context.Context, name string, object runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	eviction, ok := object.(*policyv1.Eviction)
	if !ok {
		return nil, errors.NewBadRequest(fmt.Sprintf("not a Eviction object: %T", object))
	}
	if name != eviction.Name {
		return nil, errors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	deletion, err := evictionOptions(eviction, options)
	if err != nil {
		return nil, err
	}
	if validate != nil {
		if err := validate(ctx, eviction.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	if !dryrun.IsDryRun(deletion.DryRun) {
		if deletion, err = e.mark(ctx, name, deletion); err != nil {
			return nil, err
		}
	}
	if _, _, err := e.pods.Delete(ctx, name, rest.ValidateAllObjectFunc, deletion); err != nil {
		return nil, err
	}
	return &metav1.Status{Status: metav1.StatusSuccess}, nil
}

// evictionOptions are the options to delete the pod with: those in the body, with the dry run of
// the request, which must not contradict them.
func evictionOptions(eviction *policyv1.Eviction, request *metav1.CreateOptions) (*metav1.DeleteOptions, error) {
	given := eviction.DeleteOptions
	if given == nil {
		return &metav1.DeleteOptions{DryRun: request.DryRun}, nil
	}
	if ignore := given.IgnoreStoreReadErrorWithClusterBreakingPotential; ignore != nil && *ignore {
		path := field.NewPath("deleteOptions", "ignoreStoreReadErrorWithClusterBreakingPotential")
		return nil, errors.NewInvalid(evictionVersion.GroupKind(), eviction.Name, field.ErrorList{
			field.Invalid(path, true, "can not be set for pod eviction, try after removing the option"),
		})
	}
	options := given.DeepCopy()
	switch {
	case len(options.DryRun) == 0:
		options.DryRun = request.DryRun
	case len(request.DryRun) > 0 && !reflect.DeepEqual(request.DryRun, options.DryRun):
		return nil, fmt.Errorf("Non-matching dry-run options in request and content: %v and %v", request.DryRun, options.DryRun) //nolint:staticcheck // the wording clients know
	}
	return options, nil
}

// mark says in the pod's status why it goes, under the preconditions of the deletion. It returns
// the options for the deletion of the pod as it is then.
func (e *podEviction) mark(ctx context.Context, name string, options *metav1.DeleteOptions) (*metav1.DeleteOptions, error) {
	update := rest.DefaultUpdatedObjectInfo(nil,
		func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
			pod, ok := old.(*corev1.Pod)
			if !ok {
				return nil, fmt.Errorf("unexpected object: %T", old)
			}
			if err := checkPreconditions(pod, options.Preconditions); err != nil {
				return nil, err
			}
			pod = pod.DeepCopy()
			podspec.SetCondition(&pod.Status, corev1.PodCondition{
				Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
				Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
			}, metav1.Now())
			return pod, nil
		})
	object, _, err := e.status.Update(ctx, name, update, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		return nil, err
	}
	if options.Preconditions == nil || options.Preconditions.ResourceVersion == nil {
		return options, nil
	}
	// The mark is a change of our own: the condition moves on with it.
	options = options.DeepCopy()
	version := object.(*corev1.Pod).ResourceVersion
	options.Preconditions.ResourceVersion = &version
	return options, nil
}

func checkPreconditions(pod *corev1.Pod, conditions *metav1.Preconditions) error {
	if conditions == nil {
		return nil
	}
	conflict := func(format string, args ...any) error {
		return errors.NewConflict(schema.GroupResource{Resource: "Pod"}, pod.Name, fmt.Errorf(format, args...))
	}
	if uid := conditions.UID; uid != nil && *uid != "" && *uid != pod.UID {
		return conflict("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *uid, pod.UID)
	}
	if version := conditions.ResourceVersion; version != nil && *version != "" && *version != pod.ResourceVersion {
		return conflict("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *version, pod.ResourceVersion)
	}
	return nil
}
