package authorization

import (
	"context"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/skiff-run/skiff/control/registry"
)

// subjectAccessReviews answers whether some user may do something.
func subjectAccessReviews(deps *registry.Dependencies) *reviews[*authorizationv1.SubjectAccessReview] {
	return &reviews[*authorizationv1.SubjectAccessReview]{
		kind: "SubjectAccessReview", singular: "subjectaccessreview",
		make: func() *authorizationv1.SubjectAccessReview { return &authorizationv1.SubjectAccessReview{} },
		check: func(_ context.Context, r *authorizationv1.SubjectAccessReview) error {
			return refuse("SubjectAccessReview", validateSubjectAccessReview(r))
		},
		answer: func(ctx context.Context, r *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error) {
			var err error
			r.Status, err = decide(ctx, deps, specAttributes(&r.Spec))
			return r, err
		},
	}
}

// selfSubjectAccessReviews answers whether the one who asks may do something.
func selfSubjectAccessReviews(deps *registry.Dependencies) *reviews[*authorizationv1.SelfSubjectAccessReview] {
	return &reviews[*authorizationv1.SelfSubjectAccessReview]{
		kind: "SelfSubjectAccessReview", singular: "selfsubjectaccessreview",
		make: func() *authorizationv1.SelfSubjectAccessReview { return &authorizationv1.SelfSubjectAccessReview{} },
		check: func(ctx context.Context, r *authorizationv1.SelfSubjectAccessReview) error {
			if err := refuse("SelfSubjectAccessReview", validateSelfSubjectAccessReview(r)); err != nil {
				return err
			}
			_, err := asker(ctx)
			return err
		},
		answer: func(ctx context.Context, r *authorizationv1.SelfSubjectAccessReview) (*authorizationv1.SelfSubjectAccessReview, error) {
			who, err := asker(ctx)
			if err != nil {
				return nil, err
			}
			r.Status, err = decide(ctx, deps, attributesOf(who, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes))
			return r, err
		},
	}
}

// localSubjectAccessReviews answers whether some user may do something in one
// namespace, to those who may only ask about that.
func localSubjectAccessReviews(deps *registry.Dependencies) *reviews[*authorizationv1.LocalSubjectAccessReview] {
	return &reviews[*authorizationv1.LocalSubjectAccessReview]{
		kind: "LocalSubjectAccessReview", singular: "localsubjectaccessreview", namespaced: true,
		make: func() *authorizationv1.LocalSubjectAccessReview { return &authorizationv1.LocalSubjectAccessReview{} },
		check: func(ctx context.Context, r *authorizationv1.LocalSubjectAccessReview) error {
			if err := refuse("LocalSubjectAccessReview", validateLocalSubjectAccessReview(r)); err != nil {
				return err
			}
			namespace := request.NamespaceValue(ctx)
			if namespace == "" {
				return apierrors.NewBadRequest("namespace is required on this type: ")
			}
			if namespace != r.Namespace {
				return apierrors.NewBadRequest("spec.resourceAttributes.namespace must match namespace: " + namespace)
			}
			return nil
		},
		answer: func(ctx context.Context, r *authorizationv1.LocalSubjectAccessReview) (*authorizationv1.LocalSubjectAccessReview, error) {
			var err error
			r.Status, err = decide(ctx, deps, specAttributes(&r.Spec))
			return r, err
		},
	}
}

func refuse(kind string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(authorizationv1.SchemeGroupVersion.WithKind(kind).GroupKind(), "", errs)
}

// asker is the user of the request.
func asker(ctx context.Context) (user.Info, error) {
	who, found := request.UserFrom(ctx)
	if !found {
		return nil, apierrors.NewBadRequest("no user present on request")
	}
	return who, nil
}

func decide(ctx context.Context, deps *registry.Dependencies, attributes authorizer.AttributesRecord) (authorizationv1.SubjectAccessReviewStatus, error) {
	if deps.Authorizer == nil {
		return authorizationv1.SubjectAccessReviewStatus{}, apierrors.NewServiceUnavailable("the authorizer is not ready yet")
	}
	decision, reason, err := deps.Authorizer.Authorize(ctx, attributes)
	return authorizationv1.SubjectAccessReviewStatus{
		Allowed: decision == authorizer.DecisionAllow,
		Denied:  decision == authorizer.DecisionDeny,
		Reason:  reason, EvaluationError: evaluationError(err, attributes),
	}, nil
}

// evaluationError says what was not taken into account.
func evaluationError(err error, attributes authorizer.AttributesRecord) string {
	var out []string
	if err != nil {
		out = append(out, err.Error())
	}
	ignored := func(selector string, understood int, err error) {
		if err == nil {
			return
		}
		how := "ignored"
		if understood > 0 {
			how = "partially ignored"
		}
		out = append(out, "spec.resourceAttributes."+selector+" "+how+" due to parse error")
	}
	ignored("fieldSelector", len(attributes.FieldSelectorRequirements), attributes.FieldSelectorParsingErr)
	ignored("labelSelector", len(attributes.LabelSelectorRequirements), attributes.LabelSelectorParsingErr)
	return strings.Join(out, "; ")
}
