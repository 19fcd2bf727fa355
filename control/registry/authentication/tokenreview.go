package authentication

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/skiff-run/skiff/control/registry"
)

// tokenReviews answers whose a token is. It implements rest.Creater.
type tokenReviews struct{ deps *registry.Dependencies }

// New implements rest.Storage.
func (*tokenReviews) New() runtime.Object { return &authenticationv1.TokenReview{} }

// Destroy implements rest.Storage: nothing is stored.
func (*tokenReviews) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (*tokenReviews) NamespaceScoped() bool { return false }

// GetSingularName implements rest.SingularNameProvider.
func (*tokenReviews) GetSingularName() string { return "tokenreview" }

// Create implements rest.Creater.
func (r *tokenReviews) Create(ctx context.Context, object runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	review, ok := object.(*authenticationv1.TokenReview)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a TokenReview: %#v", object))
	}
	if namespace := request.NamespaceValue(ctx); namespace != "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("namespace is not allowed on this type: %v", namespace))
	}
	if review.Spec.Token == "" {
		return nil, apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	if validate != nil {
		if err := validate(ctx, object.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	if r.deps.Authenticator == nil {
		return review, nil
	}
	audiences := authenticator.Audiences(review.Spec.Audiences)
	if len(audiences) == 0 {
		audiences = r.deps.Audiences
	}
	response, authenticated, err := r.authenticate(ctx, review.Spec.Token, audiences)
	review.Status.Authenticated = authenticated
	if err != nil {
		review.Status.Error = err.Error()
	}
	if response == nil {
		return review, nil
	}
	if len(audiences) > 0 && len(audiences.Intersect(response.Audiences)) == 0 {
		return nil, apierrors.NewInternalError(errors.New("error validating audiences"))
	}
	if response.User != nil {
		review.Status.User = userInfo(response.User)
		review.Status.Audiences = response.Audiences
	}
	return review, nil
}

// authenticate asks with a request that carries nothing but the token, so that
// nothing of the one who asks counts for the answer.
func (r *tokenReviews) authenticate(ctx context.Context, token string, audiences authenticator.Audiences) (*authenticator.Response, bool, error) {
	own, cancel := context.WithCancel(context.Background())
	defer cancel()
	// Whoever asks may stop waiting.
	defer context.AfterFunc(ctx, cancel)()
	if len(audiences) > 0 {
		own = authenticator.WithAudiences(own, audiences)
	}
	bare := (&http.Request{Header: http.Header{"Authorization": {"Bearer " + token}}}).WithContext(own)
	return r.deps.Authenticator.AuthenticateRequest(bare)
}

func userInfo(who user.Info) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{Username: who.GetName(), UID: who.GetUID(), Groups: who.GetGroups(), Extra: map[string]authenticationv1.ExtraValue{}}
	for key, values := range who.GetExtra() {
		info.Extra[key] = values
	}
	return info
}
