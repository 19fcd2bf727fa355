// Package admission holds the built-in admission plugins, one file each, under
// the names and with the rules of Kubernetes' default set, and joins them to a
// chain in its order. Plugins read through informers that belong to the API
// server; none keeps state.
package admission

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
)

// Config is what plugins read and ask.
type Config struct {
	Client     kubernetes.Interface
	Informers  informers.SharedInformerFactory
	Authorizer authorizer.Authorizer
}

// Chain returns all plugins as one.
func Chain(c Config) (admission.Interface, error) {
	namespaces, err := lifecycle.NewLifecycle(sets.New(metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic))
	if err != nil {
		return nil, fmt.Errorf("namespace lifecycle: %w", err)
	}
	namespaces.SetExternalKubeInformerFactory(c.Informers)
	namespaces.SetExternalKubeClientSet(c.Client)
	security, err := newPodSecurity(c)
	if err != nil {
		return nil, err
	}
	return admission.NewChainHandler(
		namespaces,
		newServiceAccount(c),
		newNodeRestriction(c),
		nodeTaint{on(admission.Create)},
		newPriority(c),
		newDefaultIngressClass(c),
		defaultTolerations{on(admission.Create, admission.Update)},
		newRuntimeClass(c),
		security,
		newPodResize(c),
		storageInUse{on(admission.Create)},
		newDefaultStorageClass(c),
		newClaimResize(c),
		certificateApproval{on(admission.Update), c.Authorizer},
		certificateSigning{on(admission.Update), c.Authorizer},
		certificateSubjectRestriction{on(admission.Create)},
		trustBundleAttest{on(admission.Create, admission.Update), c.Authorizer},
	), nil
}

// operations implements admission.Interface for a plugin.
type operations struct{ *admission.Handler }

func on(ops ...admission.Operation) operations { return operations{admission.NewHandler(ops...)} }

// concerns says whether the request is about the main resource.
func concerns(a admission.Attributes, group, resource string) bool {
	return a.GetResource().GroupResource() == (schema.GroupResource{Group: group, Resource: resource}) && a.GetSubresource() == ""
}

// MutationFunc and ValidationFunc are checked at compile time to be what the
// chain calls.
var (
	_ admission.MutationInterface   = (*serviceAccount)(nil)
	_ admission.ValidationInterface = (*nodeRestriction)(nil)
)

// forbidden is a refusal with a reason.
func forbidden(a admission.Attributes, format string, args ...any) error {
	return admission.NewForbidden(a, fmt.Errorf(format, args...))
}

// ready waits until the informers that a plugin reads have their first state.
func ready(ctx context.Context, a admission.Attributes, synced ...func() bool) error {
	for _, each := range synced {
		if each() {
			continue
		}
		if !waitFor(ctx, each) {
			return forbidden(a, "not yet ready to handle request")
		}
	}
	return nil
}
