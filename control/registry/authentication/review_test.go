package authentication

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/skiff-run/skiff/control/registry"
)

// knows authenticates one token, for the audiences "api" and "vault".
func knows(r *http.Request) (*authenticator.Response, bool, error) {
	if r.Header.Get("Authorization") != "Bearer good" {
		return nil, false, errors.New("unknown token")
	}
	if _, found := request.UserFrom(r.Context()); found {
		return nil, false, errors.New("the asker's identity has leaked into the question")
	}
	asked, _ := authenticator.AudiencesFrom(r.Context())
	audiences := asked.Intersect(authenticator.Audiences{"api", "vault"})
	if len(audiences) == 0 {
		return nil, false, errors.New("wrong audience")
	}
	return &authenticator.Response{Audiences: audiences, User: &user.DefaultInfo{Name: "ann", UID: "1", Groups: []string{"staff"}, Extra: map[string][]string{"a": {"b"}}}}, true, nil
}

func TestTokenReviews(t *testing.T) {
	t.Parallel()
	deps := &registry.Dependencies{Audiences: authenticator.Audiences{"api"}}
	group, err := Group(deps)
	if err != nil {
		t.Fatal(err)
	}
	deps.Authenticator = authenticator.RequestFunc(knows)
	ann := authenticationv1.UserInfo{Username: "ann", UID: "1", Groups: []string{"staff"}, Extra: map[string]authenticationv1.ExtraValue{"a": {"b"}}}
	for name, tc := range map[string]struct {
		spec authenticationv1.TokenReviewSpec
		want authenticationv1.TokenReviewStatus
	}{
		"a good token":                   {authenticationv1.TokenReviewSpec{Token: "good"}, authenticationv1.TokenReviewStatus{Authenticated: true, User: ann, Audiences: []string{"api"}}},
		"a good token for someone else":  {authenticationv1.TokenReviewSpec{Token: "good", Audiences: []string{"vault", "mail"}}, authenticationv1.TokenReviewStatus{Authenticated: true, User: ann, Audiences: []string{"vault"}}},
		"a good token but not for these": {authenticationv1.TokenReviewSpec{Token: "good", Audiences: []string{"mail"}}, authenticationv1.TokenReviewStatus{Error: "wrong audience"}},
		"a token nobody knows":           {authenticationv1.TokenReviewSpec{Token: "bad"}, authenticationv1.TokenReviewStatus{Error: "unknown token"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := request.WithUser(t.Context(), &user.DefaultInfo{Name: "asker"})
			object, err := group.Versions["v1"]["tokenreviews"].(rest.Creater).Create(ctx, &authenticationv1.TokenReview{Spec: tc.spec}, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, object.(*authenticationv1.TokenReview).Status); diff != "" {
				t.Errorf("status (-want +got):\n%s", diff)
			}
		})
	}
	_, err = group.Versions["v1"]["tokenreviews"].(rest.Creater).Create(t.Context(), &authenticationv1.TokenReview{}, nil, &metav1.CreateOptions{})
	if !apierrors.IsBadRequest(err) {
		t.Errorf("a review without a token gives %v, want 400", err)
	}
}

func TestSelfSubjectReviewsAnswerWhoAsks(t *testing.T) {
	t.Parallel()
	group, err := Group(&registry.Dependencies{})
	if err != nil {
		t.Fatal(err)
	}
	reviews := group.Versions["v1"]["selfsubjectreviews"].(rest.Creater)
	ctx := request.WithUser(context.Background(), &user.DefaultInfo{Name: "ann", Groups: []string{"staff"}})
	object, err := reviews.Create(ctx, &authenticationv1.SelfSubjectReview{}, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := authenticationv1.UserInfo{Username: "ann", Groups: []string{"staff"}, Extra: map[string]authenticationv1.ExtraValue{}}
	if diff := cmp.Diff(want, object.(*authenticationv1.SelfSubjectReview).Status.UserInfo); diff != "" {
		t.Errorf("user (-want +got):\n%s", diff)
	}
	if _, err := reviews.Create(context.Background(), &authenticationv1.SelfSubjectReview{}, nil, &metav1.CreateOptions{}); !apierrors.IsBadRequest(err) {
		t.Errorf("nobody asking gives %v, want 400", err)
	}
}
