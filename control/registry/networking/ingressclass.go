package networking

import (
	"context"

	networkingv1 "k8s.io/api/networking/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry"
)

// ingressClassKind serves IngressClasses.
func ingressClassKind() registry.Kind[*networkingv1.IngressClass] {
	return registry.Kind[*networkingv1.IngressClass]{
		Version: networkingv1.SchemeGroupVersion, Plural: "ingressclasses", Singular: "ingressclass", ClusterScoped: true,
		New:     func() *networkingv1.IngressClass { return &networkingv1.IngressClass{} },
		NewList: func() runtime.Object { return &networkingv1.IngressClassList{} },
		Default: func(c *networkingv1.IngressClass) {
			if p := c.Spec.Parameters; p != nil && p.Scope == nil {
				p.Scope = ptr.To(networkingv1.IngressClassParametersReferenceScopeCluster)
			}
		},
		Spec:         func(c *networkingv1.IngressClass) any { return &c.Spec },
		Generation:   true,
		ValidateName: apivalidation.NameIsDNSSubdomain,
		Validate: func(_ context.Context, c *networkingv1.IngressClass) field.ErrorList {
			return validateIngressClass(&c.Spec)
		},
		ValidateUpdate: func(_ context.Context, c, old *networkingv1.IngressClass) field.ErrorList {
			return apivalidation.ValidateImmutableField(c.Spec.Controller, old.Spec.Controller, field.NewPath("spec", "controller"))
		},
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(),
			registry.Column("Controller", "string", "Controller that is responsible for handling this class"),
			registry.Column("Parameters", "string", "A reference to a resource with additional parameters"),
			registry.AgeColumn(),
		},
		Row: func(c *networkingv1.IngressClass) []any {
			name, parameters := c.Name, "<none>"
			if IsDefaultClass(c) {
				name += " (default)"
			}
			if p := c.Spec.Parameters; p != nil {
				parameters = p.Kind
				if p.APIGroup != nil {
					parameters += "." + *p.APIGroup
				}
				parameters += "/" + p.Name
			}
			return []any{name, c.Spec.Controller, parameters, registry.Age(c.CreationTimestamp)}
		},
	}
}

// IsDefaultClass says whether Ingresses that name no class get this one.
func IsDefaultClass(c *networkingv1.IngressClass) bool {
	return c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true"
}

// maxController bounds the name of a controller.
const maxController = 250

func validateIngressClass(spec *networkingv1.IngressClassSpec) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if len(spec.Controller) > maxController {
		errs = append(errs, field.TooLong(path.Child("controller"), "" /* not shown */, maxController))
	}
	errs = append(errs, validation.IsDomainPrefixedPath(path.Child("controller"), spec.Controller)...)
	p := spec.Parameters
	if p == nil {
		return errs
	}
	path = path.Child("parameters")
	errs = append(errs, validateTyped(p.APIGroup, p.Kind, p.Name, path)...)
	const cluster, namespace = networkingv1.IngressClassParametersReferenceScopeCluster, networkingv1.IngressClassParametersReferenceScopeNamespace
	switch scope := ptr.Deref(p.Scope, ""); {
	case p.Scope == nil:
		errs = append(errs, field.Required(path.Child("scope"), ""))
	case scope != cluster && scope != namespace:
		errs = append(errs, field.NotSupported(path.Child("scope"), scope, []string{cluster, namespace}))
	case scope == namespace && p.Namespace == nil:
		errs = append(errs, field.Required(path.Child("namespace"), "`parameters.scope` is set to 'Namespace'"))
	case scope == namespace:
		errs = append(errs, invalid(path.Child("namespace"), *p.Namespace, apivalidation.ValidateNamespaceName(*p.Namespace, false))...)
	case p.Namespace != nil:
		errs = append(errs, field.Forbidden(path.Child("namespace"), "`parameters.scope` is set to 'Cluster'"))
	}
	return errs
}
