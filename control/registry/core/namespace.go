package core

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

// namespaceKind serves Namespaces.
func namespaceKind() registry.Kind[*corev1.Namespace] {
	return registry.Kind[*corev1.Namespace]{
		Version: corev1.SchemeGroupVersion, Plural: "namespaces", Singular: "namespace", ShortNames: []string{"ns"}, ClusterScoped: true,
		New:          func() *corev1.Namespace { return &corev1.Namespace{} },
		NewList:      func() runtime.Object { return &corev1.NamespaceList{} },
		Default:      defaultNamespace,
		Spec:         func(n *corev1.Namespace) any { return &n.Spec },
		Status:       func(n *corev1.Namespace) any { return &n.Status },
		ValidateName: apivalidation.ValidateNamespaceName,
		// A generated name is not known before.
		Canonicalize: labelNamespace,
		PrepareForCreate: func(_ context.Context, n *corev1.Namespace) {
			n.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
			if !slices.Contains(n.Spec.Finalizers, corev1.FinalizerKubernetes) {
				n.Spec.Finalizers = append(n.Spec.Finalizers, corev1.FinalizerKubernetes)
			}
		},
		// The last finalizer gone, an update removes the namespace, and none before.
		Held:             func(n *corev1.Namespace) bool { return len(n.Spec.Finalizers) > 0 },
		PrepareForUpdate: func(_ context.Context, n, old *corev1.Namespace) { n.Spec.Finalizers = old.Spec.Finalizers },
		Validate:         func(_ context.Context, n *corev1.Namespace) field.ErrorList { return validateNamespace(n) },
		ValidateStatus:   func(_ context.Context, n, _ *corev1.Namespace) field.ErrorList { return validateNamespacePhase(n) },
		Fields:           func(n *corev1.Namespace) fields.Set { return fields.Set{"status.phase": string(n.Status.Phase)} },
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(), registry.Column("Status", "string", "The status of the namespace"), registry.AgeColumn(),
		},
		Row: func(n *corev1.Namespace) []any {
			return []any{n.Name, string(n.Status.Phase), registry.Age(n.CreationTimestamp)}
		},
	}
}

// defaultNamespace labels a namespace with its name, so that selectors can
// find a single one.
func defaultNamespace(n *corev1.Namespace) {
	if n.Status.Phase == "" {
		n.Status.Phase = corev1.NamespaceActive
	}
	if n.Name != "" {
		labelNamespace(n)
	}
}

func labelNamespace(n *corev1.Namespace) {
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[corev1.LabelMetadataName] = n.Name
}

func validateNamespace(n *corev1.Namespace) field.ErrorList {
	var errs field.ErrorList
	for _, finalizer := range n.Spec.Finalizers {
		// Without an index, unlike the finalize subresource: so it is upstream.
		errs = append(errs, validateNamespaceFinalizer(string(finalizer), field.NewPath("spec", "finalizers"))...)
	}
	return errs
}

func validateNamespaceFinalizer(name string, path *field.Path) field.ErrorList {
	return append(apivalidation.ValidateFinalizerName(name, path), registry.ValidateFinalizer(name, path)...)
}

// validateNamespacePhase: a namespace is Terminating exactly when it is being deleted.
func validateNamespacePhase(n *corev1.Namespace) field.ErrorList {
	path := field.NewPath("status", "Phase")
	if n.DeletionTimestamp.IsZero() {
		if n.Status.Phase != corev1.NamespaceActive {
			return field.ErrorList{field.Invalid(path, n.Status.Phase, "may only be 'Active' if `deletionTimestamp` is empty")}
		}
	} else if n.Status.Phase != corev1.NamespaceTerminating {
		return field.ErrorList{field.Invalid(path, n.Status.Phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")}
	}
	return nil
}

// namespaces deletes in two steps: a deletion only marks, and the finalizers in
// the spec keep the namespace until everything in it is gone.
type namespaces struct {
	*registry.Store[*corev1.Namespace]
}

// Delete implements rest.GracefulDeleter.
func (n *namespaces) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	current, err := n.Read(ctx, name)
	if err != nil {
		return nil, false, err
	}
	if options == nil {
		options = metav1.NewDeleteOptions(0)
	}
	preconditions := storage.Preconditions{}
	if options.Preconditions != nil {
		preconditions.UID, preconditions.ResourceVersion = options.Preconditions.UID, options.Preconditions.ResourceVersion
	}
	if preconditions.UID == nil {
		preconditions.UID = &current.UID
	} else if current.UID != *preconditions.UID {
		return nil, false, apierrors.NewConflict(corev1.Resource("namespaces"), name,
			fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", *preconditions.UID, current.UID))
	}
	if len(current.Spec.Finalizers) == 0 && len(current.Finalizers) == 0 {
		return n.Store.Delete(ctx, name, validate, options)
	}
	if !current.DeletionTimestamp.IsZero() {
		return current, false, nil
	}
	marked, err := n.mark(ctx, name, &preconditions, validate, options)
	return marked, false, err
}

func (n *namespaces) mark(ctx context.Context, name string, preconditions *storage.Preconditions, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, error) {
	key, err := n.KeyFunc(ctx, name)
	if err != nil {
		return nil, err
	}
	out := &corev1.Namespace{}
	err = n.Storage.GuaranteedUpdate(ctx, key, out, false, preconditions, storage.SimpleUpdate(func(object runtime.Object) (runtime.Object, error) {
		namespace, ok := object.(*corev1.Namespace)
		if !ok {
			return nil, fmt.Errorf("mark namespace %s: got %T", name, object)
		}
		if err := validate(ctx, namespace); err != nil {
			return nil, err
		}
		if namespace.DeletionTimestamp.IsZero() {
			now := metav1.Now()
			namespace.DeletionTimestamp = &now
		}
		namespace.Status.Phase = corev1.NamespaceTerminating
		orphan := options.PropagationPolicy != nil && *options.PropagationPolicy == metav1.DeletePropagationOrphan
		namespace.Finalizers = slices.DeleteFunc(namespace.Finalizers, func(f string) bool { return f == metav1.FinalizerOrphanDependents && !orphan })
		if orphan && !slices.Contains(namespace.Finalizers, metav1.FinalizerOrphanDependents) {
			namespace.Finalizers = append(namespace.Finalizers, metav1.FinalizerOrphanDependents)
		}
		return namespace, nil
	}), len(options.DryRun) > 0, nil)
	if err != nil {
		return nil, apiError(err, "namespaces", name)
	}
	return out, nil
}

// apiError is a storage error in the API's words.
func apiError(err error, resource, name string) error {
	switch {
	case storage.IsNotFound(err):
		return apierrors.NewNotFound(corev1.Resource(resource), name)
	case storage.IsConflict(err), storage.IsInvalidObj(err):
		return apierrors.NewConflict(corev1.Resource(resource), name, err)
	}
	return err
}

// finalizeStrategy changes the finalizers in the spec and nothing else.
type finalizeStrategy struct {
	rest.RESTUpdateStrategy
}

func (finalizeStrategy) PrepareForUpdate(_ context.Context, object, old runtime.Object) {
	n, before := object.(*corev1.Namespace), old.(*corev1.Namespace)
	n.Status = before.Status
}

func (finalizeStrategy) ValidateUpdate(_ context.Context, object, old runtime.Object) field.ErrorList {
	n, before := object.(*corev1.Namespace), old.(*corev1.Namespace)
	errs := podspec.ValidateObjectMetaUpdate(&n.ObjectMeta, &before.ObjectMeta)
	for i, finalizer := range n.Spec.Finalizers {
		errs = append(errs, validateNamespaceFinalizer(string(finalizer), field.NewPath("spec", "finalizers").Index(i))...)
	}
	return errs
}

func (finalizeStrategy) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return map[fieldpath.APIVersion]*fieldpath.Set{"v1": fieldpath.NewSet(fieldpath.MakePathOrDie("status"))}
}

func addNamespaces(deps *registry.Dependencies, storages registry.Storages) error {
	store, own, err := registry.Build(deps, namespaceKind())
	if err != nil {
		return err
	}
	own["namespaces"] = &namespaces{store}
	own["namespaces/finalize"] = registry.NewSubresource(store.Store, finalizeStrategy{store.UpdateStrategy})
	storages.Add(own)
	return nil
}
