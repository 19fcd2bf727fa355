package authorization

import (
	"context"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/skiff-run/skiff/control/registry"
)

// selfSubjectRulesReviews answers what the one who asks may do in a namespace.
func selfSubjectRulesReviews(deps *registry.Dependencies) *reviews[*authorizationv1.SelfSubjectRulesReview] {
	return &reviews[*authorizationv1.SelfSubjectRulesReview]{
		kind: "SelfSubjectRulesReview", singular: "selfsubjectrulesreview",
		make: func() *authorizationv1.SelfSubjectRulesReview { return &authorizationv1.SelfSubjectRulesReview{} },
		check: func(ctx context.Context, r *authorizationv1.SelfSubjectRulesReview) error {
			if _, err := asker(ctx); err != nil {
				return err
			}
			if r.Spec.Namespace == "" {
				return apierrors.NewBadRequest("no namespace on request")
			}
			return nil
		},
		answer: func(ctx context.Context, r *authorizationv1.SelfSubjectRulesReview) (*authorizationv1.SelfSubjectRulesReview, error) {
			who, err := asker(ctx)
			if err != nil {
				return nil, err
			}
			if deps.Rules == nil {
				return nil, apierrors.NewServiceUnavailable("the authorizer is not ready yet")
			}
			resources, others, incomplete, err := deps.Rules.RulesFor(ctx, who, r.Spec.Namespace)
			answer := &authorizationv1.SelfSubjectRulesReview{Status: authorizationv1.SubjectRulesReviewStatus{
				ResourceRules:    make([]authorizationv1.ResourceRule, len(resources)),
				NonResourceRules: make([]authorizationv1.NonResourceRule, len(others)),
				Incomplete:       incomplete,
			}}
			for i, rule := range resources {
				answer.Status.ResourceRules[i] = authorizationv1.ResourceRule{
					Verbs: rule.GetVerbs(), APIGroups: rule.GetAPIGroups(), Resources: rule.GetResources(), ResourceNames: rule.GetResourceNames(),
				}
			}
			for i, rule := range others {
				answer.Status.NonResourceRules[i] = authorizationv1.NonResourceRule{Verbs: rule.GetVerbs(), NonResourceURLs: rule.GetNonResourceURLs()}
			}
			// The rules that were found count all the same.
			if err != nil {
				answer.Status.EvaluationError = err.Error()
			}
			return answer, nil
		},
	}
}
