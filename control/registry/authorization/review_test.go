package authorization

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/skiff-run/skiff/control/registry"
)

// fixed lets ann read the pods of node-a and denies mallory everything.
type fixed struct{ authorizer.Authorizer }

func (fixed) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetUser().GetName() == "mallory" {
		return authorizer.DecisionDeny, "never", nil
	}
	requirements, _ := a.GetFieldSelector()
	onlyTheirs := len(requirements) == 1 && requirements[0].Field == "spec.nodeName" && requirements[0].Value == "node-a"
	if a.GetUser().GetName() == "ann" && a.GetVerb() == "list" && a.GetResource() == "pods" && a.GetAPIVersion() == "*" && onlyTheirs {
		return authorizer.DecisionAllow, "theirs", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func (fixed) RulesFor(context.Context, user.Info, string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	return []authorizer.ResourceRuleInfo{&authorizer.DefaultResourceRuleInfo{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}},
		[]authorizer.NonResourceRuleInfo{&authorizer.DefaultNonResourceRuleInfo{Verbs: []string{"get"}, NonResourceURLs: []string{"/livez"}}}, true, errors.New("a role is missing")
}

// ask posts a review as ann to a group whose authorizer came after it.
func ask(t *testing.T, resource, namespace string, review runtime.Object) (runtime.Object, error) {
	t.Helper()
	deps := &registry.Dependencies{}
	group, err := Group(deps)
	if err != nil {
		t.Fatal(err)
	}
	deps.Authorizer, deps.Rules = fixed{}, fixed{}
	ctx := request.WithUser(request.WithNamespace(t.Context(), namespace), &user.DefaultInfo{Name: "ann"})
	return group.Versions["v1"][resource].(rest.Creater).Create(ctx, review, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
}

func onNode(operator metav1.FieldSelectorOperator, values ...string) *authorizationv1.ResourceAttributes {
	return &authorizationv1.ResourceAttributes{Verb: "list", Resource: "pods", FieldSelector: &authorizationv1.FieldSelectorAttributes{
		Requirements: []metav1.FieldSelectorRequirement{{Key: "spec.nodeName", Operator: operator, Values: values}},
	}}
}

func TestSubjectAccessReviews(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		spec authorizationv1.SubjectAccessReviewSpec
		want authorizationv1.SubjectAccessReviewStatus
	}{
		"allowed by a field selector": {
			authorizationv1.SubjectAccessReviewSpec{User: "ann", ResourceAttributes: onNode(metav1.FieldSelectorOpIn, "node-a")},
			authorizationv1.SubjectAccessReviewStatus{Allowed: true, Reason: "theirs"},
		},
		"allowed by a selector written as text": {
			authorizationv1.SubjectAccessReviewSpec{User: "ann", ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: "list", Resource: "pods", FieldSelector: &authorizationv1.FieldSelectorAttributes{RawSelector: "spec.nodeName=node-a"},
			}},
			authorizationv1.SubjectAccessReviewStatus{Allowed: true, Reason: "theirs"},
		},
		"a selector that is not understood asks for everything": {
			authorizationv1.SubjectAccessReviewSpec{User: "ann", ResourceAttributes: onNode(metav1.FieldSelectorOpExists)},
			authorizationv1.SubjectAccessReviewStatus{EvaluationError: "spec.resourceAttributes.fieldSelector ignored due to parse error"},
		},
		"denied": {
			authorizationv1.SubjectAccessReviewSpec{User: "mallory", NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: "/livez", Verb: "get"}},
			authorizationv1.SubjectAccessReviewStatus{Denied: true, Reason: "never"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			object, err := ask(t, "subjectaccessreviews", "", &authorizationv1.SubjectAccessReview{Spec: tc.spec})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, object.(*authorizationv1.SubjectAccessReview).Status); diff != "" {
				t.Errorf("status (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReviewsThatAreRefused(t *testing.T) {
	t.Parallel()
	resource := &authorizationv1.ResourceAttributes{Verb: "get", Resource: "pods", Namespace: "dev"}
	for name, tc := range map[string]struct {
		resource, namespace string
		review              runtime.Object
		want                string
	}{
		"nothing is asked": {resource: "subjectaccessreviews", review: &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: "ann"}},
			want: "exactly one of nonResourceAttributes or resourceAttributes must be specified"},
		"about nobody": {resource: "subjectaccessreviews", review: &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{ResourceAttributes: resource}},
			want: `spec.user: Invalid value: "": at least one of user or group must be specified`},
		"one with a name": {resource: "selfsubjectaccessreviews", review: &authorizationv1.SelfSubjectAccessReview{
			ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: resource},
		}, want: "must be empty"},
		"a local one about another namespace": {resource: "localsubjectaccessreviews", namespace: "prod", review: &authorizationv1.LocalSubjectAccessReview{
			ObjectMeta: metav1.ObjectMeta{Namespace: "prod"}, Spec: authorizationv1.SubjectAccessReviewSpec{User: "ann", ResourceAttributes: resource},
		}, want: `spec.resourceAttributes.namespace: Invalid value: "dev": must match metadata.namespace`},
		"a local one posted to another namespace": {resource: "localsubjectaccessreviews", namespace: "prod", review: &authorizationv1.LocalSubjectAccessReview{
			ObjectMeta: metav1.ObjectMeta{Namespace: "dev"}, Spec: authorizationv1.SubjectAccessReviewSpec{User: "ann", ResourceAttributes: resource},
		}, want: "spec.resourceAttributes.namespace must match namespace: prod"},
		"rules of no namespace": {resource: "selfsubjectrulesreviews", review: &authorizationv1.SelfSubjectRulesReview{}, want: "no namespace on request"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := ask(t, tc.resource, tc.namespace, tc.review); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestReviewsOfTheAskersOwnRights(t *testing.T) {
	t.Parallel()
	object, err := ask(t, "selfsubjectaccessreviews", "", &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: onNode(metav1.FieldSelectorOpIn, "node-a")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !object.(*authorizationv1.SelfSubjectAccessReview).Status.Allowed {
		t.Error("ann may not read the pods of node-a")
	}
	object, err = ask(t, "selfsubjectrulesreviews", "", &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "dev"}})
	if err != nil {
		t.Fatal(err)
	}
	want := authorizationv1.SubjectRulesReviewStatus{
		ResourceRules:    []authorizationv1.ResourceRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}},
		NonResourceRules: []authorizationv1.NonResourceRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/livez"}}},
		Incomplete:       true, EvaluationError: "a role is missing",
	}
	if diff := cmp.Diff(want, object.(*authorizationv1.SelfSubjectRulesReview).Status); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}
