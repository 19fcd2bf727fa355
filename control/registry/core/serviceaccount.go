package core

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-run/skiff/control/registry"
)

// serviceAccountKind serves ServiceAccounts.
func serviceAccountKind() registry.Kind[*corev1.ServiceAccount] {
	return registry.Kind[*corev1.ServiceAccount]{
		Version: corev1.SchemeGroupVersion, Plural: "serviceaccounts", Singular: "serviceaccount", ShortNames: []string{"sa"},
		New:          func() *corev1.ServiceAccount { return &corev1.ServiceAccount{} },
		NewList:      func() runtime.Object { return &corev1.ServiceAccountList{} },
		ValidateName: apivalidation.ValidateServiceAccountName,
		PrepareForCreate: func(_ context.Context, a *corev1.ServiceAccount) {
			// Only names count.
			a.Secrets = onlyNames(a.Secrets)
		},
		PrepareForUpdate: func(_ context.Context, a, _ *corev1.ServiceAccount) { a.Secrets = onlyNames(a.Secrets) },
		Validate:         func(context.Context, *corev1.ServiceAccount) field.ErrorList { return nil },
		Warnings:         func(_ context.Context, a, old *corev1.ServiceAccount) []string { return accountWarnings(a, old) },
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(),
			registry.AgeColumn(),
		},
		Row: func(a *corev1.ServiceAccount) []any {
			return []any{a.Name, registry.Age(a.CreationTimestamp)}
		},
	}
}

func onlyNames(secrets []corev1.ObjectReference) []corev1.ObjectReference {
	for i := range secrets {
		secrets[i] = corev1.ObjectReference{Name: secrets[i].Name}
	}
	return secrets
}

// mountableSecrets restricts which secrets the account's pods may mount.
const mountableSecrets = "kubernetes.io/enforce-mountable-secrets"

// accountWarnings warns who begins to use the annotation, not who has it.
func accountWarnings(a, old *corev1.ServiceAccount) []string {
	if old != nil {
		if _, before := old.Annotations[mountableSecrets]; before {
			return nil
		}
	}
	if _, has := a.Annotations[mountableSecrets]; has {
		return []string{"metadata.annotations[" + mountableSecrets + "]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"}
	}
	return nil
}

func addServiceAccounts(deps *registry.Dependencies, storages registry.Storages) error {
	store, own, err := registry.Build(deps, serviceAccountKind())
	if err != nil {
		return err
	}
	own["serviceaccounts/token"] = &tokens{accounts: store, deps: deps, storages: storages}
	storages.Add(own)
	return nil
}
