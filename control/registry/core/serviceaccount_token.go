package core

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/skiff-run/skiff/control/auth/token"
	"github.com/skiff-run/skiff/control/registry"
)

// The life of a token in seconds: an hour unless the client says otherwise.
const (
	defaultTokenSeconds = 3600
	minTokenSeconds     = 600
	maxTokenSeconds     = 1 << 32
)

// tokens serves serviceaccounts/token: a POST answers with a new token.
type tokens struct {
	accounts *registry.Store[*corev1.ServiceAccount]
	deps     *registry.Dependencies
	storages registry.Storages
}

// New implements rest.Storage.
func (t *tokens) New() runtime.Object { return &authenticationv1.TokenRequest{} }

// Destroy implements rest.Storage.
func (t *tokens) Destroy() {}

// GroupVersionKind implements rest.GroupVersionKindProvider: what is posted is
// of another group than the path.
func (t *tokens) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")
}

// Create implements rest.NamedCreater.
func (t *tokens) Create(ctx context.Context, name string, object runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	request, ok := object.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("posted %T, want a TokenRequest", object))
	}
	account, err := t.accounts.Read(ctx, name)
	if err != nil {
		return nil, err
	}
	out := request.DeepCopy()
	// Name and namespace come from the path.
	out.Name, out.Namespace = name, genericapirequest.NamespaceValue(ctx)
	if out.Spec.ExpirationSeconds == nil {
		seconds := int64(defaultTokenSeconds)
		out.Spec.ExpirationSeconds = &seconds
	}
	if len(out.Spec.Audiences) == 0 {
		out.Spec.Audiences = t.deps.Audiences
	}
	if errs := validateTokenRequest(out); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: authenticationv1.GroupName, Kind: "TokenRequest"}, "", errs)
	}
	if err := validate(ctx, out); err != nil {
		return nil, err
	}
	binding := token.Binding{Namespace: account.Namespace, ServiceAccount: token.Reference{Name: account.Name, UID: string(account.UID)}}
	if err := t.bind(ctx, &binding, out.Spec.BoundObjectRef, account); err != nil {
		return nil, err
	}
	if len(options.DryRun) > 0 {
		return out, nil
	}
	life := time.Duration(*out.Spec.ExpirationSeconds) * time.Second
	issued, err := t.deps.Tokens.Issue(binding, out.Spec.Audiences, life)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	out.Status = authenticationv1.TokenRequestStatus{Token: issued.Token, ExpirationTimestamp: metav1.NewTime(issued.Expires)}
	return out, nil
}

func validateTokenRequest(r *authenticationv1.TokenRequest) field.ErrorList {
	path := field.NewPath("spec", "expirationSeconds")
	switch seconds := *r.Spec.ExpirationSeconds; {
	case seconds < minTokenSeconds:
		return field.ErrorList{field.Invalid(path, seconds, "may not specify a duration less than 10 minutes")}
	case seconds > maxTokenSeconds:
		return field.ErrorList{field.TooLong(path, "" /* unused */, maxTokenSeconds)}
	}
	return nil
}

// bind ties the token to the object the client names, which must be there.
func (t *tokens) bind(ctx context.Context, binding *token.Binding, reference *authenticationv1.BoundObjectReference, account *corev1.ServiceAccount) error {
	if reference == nil {
		return nil
	}
	group := schema.FromAPIVersionAndKind(reference.APIVersion, reference.Kind)
	var resource string
	switch group {
	case schema.GroupVersionKind{Version: "v1", Kind: "Pod"}:
		resource = "pods"
	case schema.GroupVersionKind{Version: "v1", Kind: "Secret"}:
		resource = "secrets"
	case schema.GroupVersionKind{Version: "v1", Kind: "Node"}:
		resource = "nodes"
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount to object of type %s", group.String()))
	}
	getter, ok := t.storages[resource].(rest.Getter)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to a %s", reference.Kind))
	}
	object, err := getter.Get(ctx, reference.Name, &metav1.GetOptions{})
	if err != nil {
		return err
	}
	accessor, err := meta.Accessor(object)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if reference.UID != "" && reference.UID != accessor.GetUID() {
		return apierrors.NewConflict(corev1.Resource(resource), reference.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", reference.UID))
	}
	bound := &token.Reference{Name: accessor.GetName(), UID: string(accessor.GetUID())}
	switch o := object.(type) {
	case *corev1.Pod:
		if o.Spec.ServiceAccountName != account.Name {
			return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", account.Name))
		}
		binding.Pod = bound
		return t.bindNode(ctx, binding, o.Spec.NodeName)
	case *corev1.Secret:
		binding.Secret = bound
	default:
		binding.Node = bound
	}
	return nil
}

// bindNode lets a pod's token tell its node.
func (t *tokens) bindNode(ctx context.Context, binding *token.Binding, name string) error {
	getter, ok := t.storages["nodes"].(rest.Getter)
	if name == "" || !ok {
		return nil
	}
	binding.Node = &token.Reference{Name: name}
	object, err := getter.Get(ctx, name, &metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		// The name alone is better than nothing.
		return nil
	}
	if err != nil {
		return err
	}
	if node, ok := object.(*corev1.Node); ok {
		binding.Node.UID = string(node.UID)
	}
	return nil
}
