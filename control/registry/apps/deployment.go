package apps

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

// deploymentKind serves Deployments.
func deploymentKind() registry.Kind[*appsv1.Deployment] {
	return registry.Kind[*appsv1.Deployment]{
		Version: appsv1.SchemeGroupVersion, Plural: "deployments", Singular: "deployment", ShortNames: []string{"deploy"}, Categories: []string{"all"},
		New:     func() *appsv1.Deployment { return &appsv1.Deployment{} },
		NewList: func() runtime.Object { return &appsv1.DeploymentList{} },
		Default: defaultDeployment,
		Spec:    func(d *appsv1.Deployment) any { return &d.Spec },
		Status:  func(d *appsv1.Deployment) any { return &d.Status },
		PrepareForCreate: func(_ context.Context, d *appsv1.Deployment) {
			d.Generation = 1
			podspec.DropUnsupportedInTemplate(&d.Spec.Template)
		},
		PrepareForUpdate: func(_ context.Context, d, old *appsv1.Deployment) { prepareDeploymentUpdate(d, old) },
		Validate:         func(_ context.Context, d *appsv1.Deployment) field.ErrorList { return validateDeployment(d) },
		ValidateUpdate: func(_ context.Context, d, old *appsv1.Deployment) field.ErrorList {
			return validateDeploymentUpdate(d, old)
		},
		ValidateUpdateOnly: true,
		Warnings: func(_ context.Context, d, old *appsv1.Deployment) []string {
			if old == nil {
				return workloadWarnings(&d.ObjectMeta, nil, &d.Spec.Template)
			}
			return workloadWarnings(&d.ObjectMeta, &old.ObjectMeta, &d.Spec.Template)
		},
		// The deployment controller keeps its revision in an annotation, which it writes with the status.
		PrepareStatus: func(_ context.Context, d, old *appsv1.Deployment) { d.Labels = old.Labels },
		ValidateStatus: func(_ context.Context, d, old *appsv1.Deployment) field.ErrorList {
			return validateDeploymentStatusUpdate(d, old)
		},
		Columns: append([]metav1.TableColumnDefinition{
			registry.NameColumn(),
			registry.Column("Ready", "string", "Number of the pod with ready state"),
			registry.Column("Up-to-date", "string", appsv1.DeploymentStatus{}.SwaggerDoc()["updatedReplicas"]),
			registry.Column("Available", "string", appsv1.DeploymentStatus{}.SwaggerDoc()["availableReplicas"]),
			registry.AgeColumn(),
		}, templateColumns(appsv1.DeploymentSpec{}.SwaggerDoc()["selector"])...),
		Row: deploymentRow,
	}
}

// defaultDeployment replaces a quarter of the pods at a time, keeps ten old ReplicaSets and gives
// a rollout ten minutes to make progress.
func defaultDeployment(d *appsv1.Deployment) {
	setIfNil(&d.Spec.Replicas, 1)
	strategy := &d.Spec.Strategy
	if strategy.Type == "" {
		strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		setIfNil(&strategy.RollingUpdate, appsv1.RollingUpdateDeployment{})
		setIfNil(&strategy.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
		setIfNil(&strategy.RollingUpdate.MaxSurge, intstr.FromString("25%"))
	}
	setIfNil(&d.Spec.RevisionHistoryLimit, 10)
	setIfNil(&d.Spec.ProgressDeadlineSeconds, 600)
	podspec.SetTemplateDefaults(&d.Spec.Template)
}

func setIfNil[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

// prepareDeploymentUpdate counts generations: of the spec, and of the annotations, because those
// are copied to the ReplicaSets.
func prepareDeploymentUpdate(d, old *appsv1.Deployment) {
	podspec.DropUnsupportedInTemplate(&d.Spec.Template)
	d.Generation = old.Generation
	if !apiequality.Semantic.DeepEqual(d.Spec, old.Spec) || !apiequality.Semantic.DeepEqual(d.Annotations, old.Annotations) {
		d.Generation++
	}
}

func deploymentRow(d *appsv1.Deployment) []any {
	names, images := podspec.NamesAndImages(&d.Spec.Template.Spec)
	selector := "<invalid>"
	if parsed, err := metav1.LabelSelectorAsSelector(d.Spec.Selector); err == nil {
		selector = parsed.String()
	}
	return []any{
		d.Name, fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, replicas(d.Spec.Replicas)),
		int64(d.Status.UpdatedReplicas), int64(d.Status.AvailableReplicas), registry.Age(d.CreationTimestamp),
		names, images, selector,
	}
}

// replicas reads a number that defaults have set in every stored object.
func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

func addDeployments(deps *registry.Dependencies, storages registry.Storages) error {
	store, own, err := registry.Build(deps, deploymentKind())
	if err != nil {
		return err
	}
	storages.Add(own)
	storages["deployments/scale"] = newScale(store.Store, scaled[*appsv1.Deployment]{
		resource: "deployments",
		replicas: func(d *appsv1.Deployment) *int32 { setIfNil(&d.Spec.Replicas, 1); return d.Spec.Replicas },
		current:  func(d *appsv1.Deployment) int32 { return d.Status.Replicas },
		selector: func(d *appsv1.Deployment) *metav1.LabelSelector { return d.Spec.Selector },
	})
	return nil
}
