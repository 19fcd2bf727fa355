package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

func TestEachPathAsksForItsOwnSubresourceOfTheNode(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][]string{
		"/metrics": {"metrics"}, "/metrics/cadvisor": {"metrics"}, "/metrics/usage": {"metrics"}, "/stats/summary": {"stats"}, "/logs/": {"log"}, "/logs/x": {"log"},
		"/healthz": {"healthz", "proxy"}, "/healthz/syncloop": {"healthz", "proxy"}, "/configz": {"configz", "proxy"}, "/pods": {"pods", "proxy"}, "/pods/": {"pods", "proxy"},
		"/runningpods/": {"pods", "proxy"}, "/exec/n/p/c": {"proxy"}, "/containerLogs/n/p/c": {"proxy"}, "/podsandmore": {"proxy"}, "/checkpoint/n/p/c": {"checkpoint"}, "/": {"proxy"},
	} {
		if got := subresources(path); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

func TestARequestIsAllowedByOneOfItsSubresources(t *testing.T) {
	t.Parallel()
	serve := func(allowed, method, path string) (int, []string) {
		var asked []string
		s := New(Config{NodeName: "n1",
			Authenticator: authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
				return &authenticator.Response{User: &user.DefaultInfo{Name: "me"}}, allowed != "nobody", nil
			}),
			Authorizer: authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
				asked = append(asked, a.GetVerb()+" "+a.GetResource()+"/"+a.GetSubresource()+" "+a.GetName())
				if a.GetSubresource() == allowed {
					return authorizer.DecisionAllow, "", nil
				}
				return authorizer.DecisionNoOpinion, "", nil
			}),
		})
		w := httptest.NewRecorder()
		s.authorized(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })).ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w.Code, asked
	}
	for _, tc := range []struct {
		allowed, method, path string
		code                  int
		asked                 []string
	}{
		{"configz", "GET", "/configz", 200, []string{"get nodes/configz n1"}},
		{"proxy", "GET", "/configz", 200, []string{"get nodes/configz n1", "get nodes/proxy n1"}},
		{"metrics", "GET", "/stats/summary", 403, []string{"get nodes/stats n1"}},
		{"proxy", "GET", "/metrics", 403, []string{"get nodes/metrics n1"}},
		{"proxy", "POST", "/exec/n/p/c", 200, []string{"create nodes/proxy n1"}},
		{"nobody", "GET", "/pods", 401, nil},
	} {
		if code, asked := serve(tc.allowed, tc.method, tc.path); code != tc.code || !slices.Equal(asked, tc.asked) {
			t.Errorf("%s %s by nodes/%s: %d after %q, want %d after %q", tc.method, tc.path, tc.allowed, code, asked, tc.code, tc.asked)
		}
	}
}
