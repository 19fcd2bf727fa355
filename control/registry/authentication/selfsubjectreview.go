package authentication

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

// selfSubjectReviews answers who is asking. It implements rest.Creater.
type selfSubjectReviews struct{}

// New implements rest.Storage.
func (*selfSubjectReviews) New() runtime.Object { return &authenticationv1.SelfSubjectReview{} }

// Destroy implements rest.Storage: nothing is stored.
func (*selfSubjectReviews) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (*selfSubjectReviews) NamespaceScoped() bool { return false }

// GetSingularName implements rest.SingularNameProvider.
func (*selfSubjectReviews) GetSingularName() string { return "selfsubjectreview" }

// Create implements rest.Creater.
func (*selfSubjectReviews) Create(ctx context.Context, object runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	if validate != nil {
		if err := validate(ctx, object.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	if _, ok := object.(*authenticationv1.SelfSubjectReview); !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a SelfSubjectReview: %#v", object))
	}
	who, found := request.UserFrom(ctx)
	if !found {
		return nil, apierrors.NewBadRequest("no user present on request")
	}
	return &authenticationv1.SelfSubjectReview{
		ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.Now()},
		Status:     authenticationv1.SelfSubjectReviewStatus{UserInfo: userInfo(who)},
	}, nil
}
