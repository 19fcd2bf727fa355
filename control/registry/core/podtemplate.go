package core

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

// podTemplateKind serves PodTemplates: templates of pods as objects of their own.
func podTemplateKind() registry.Kind[*corev1.PodTemplate] {
	return registry.Kind[*corev1.PodTemplate]{
		Version: corev1.SchemeGroupVersion, Plural: "podtemplates", Singular: "podtemplate",
		New:        func() *corev1.PodTemplate { return &corev1.PodTemplate{} },
		NewList:    func() runtime.Object { return &corev1.PodTemplateList{} },
		Default:    func(t *corev1.PodTemplate) { podspec.SetTemplateDefaults(&t.Template) },
		Spec:       func(t *corev1.PodTemplate) any { return &t.Template },
		Generation: true,
		PrepareForCreate: func(_ context.Context, t *corev1.PodTemplate) {
			podspec.DropUnsupportedInTemplate(&t.Template)
		},
		PrepareForUpdate: func(_ context.Context, t, _ *corev1.PodTemplate) {
			podspec.DropUnsupportedInTemplate(&t.Template)
		},
		Validate: func(_ context.Context, t *corev1.PodTemplate) field.ErrorList { return podspec.ValidatePodTemplate(t) },
		ValidateUpdate: func(_ context.Context, t, old *corev1.PodTemplate) field.ErrorList {
			return podspec.ValidatePodTemplateUpdate(t, old)
		},
		ValidateUpdateOnly: true,
		Warnings: func(_ context.Context, t, old *corev1.PodTemplate) []string {
			if old != nil && t.Generation == old.Generation {
				return nil
			}
			return podspec.Warnings(field.NewPath("template"), &t.Template.Spec, &t.Template.ObjectMeta)
		},
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(),
			registry.Column("Containers", "string", "Names of each container in the template."),
			registry.Column("Images", "string", "Images referenced by each container in the template."),
			registry.Column("Pod Labels", "string", "The labels for the pod template."),
		},
		Row: func(t *corev1.PodTemplate) []any {
			names, images := podspec.NamesAndImages(&t.Template.Spec)
			return []any{t.Name, names, images, labels.FormatLabels(t.Template.Labels)}
		},
	}
}

func addPodTemplates(deps *registry.Dependencies, storages registry.Storages) error {
	_, own, err := registry.Build(deps, podTemplateKind())
	if err != nil {
		return fmt.Errorf("pod templates: %w", err)
	}
	storages.Add(own)
	return nil
}
