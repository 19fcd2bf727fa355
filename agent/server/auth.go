package server

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// authorized lets a request through when its user may do to this node what the
// path stands for. A path with a subresource of its own is also allowed to who
// may proxy to the node.
func (s *Server) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		response, ok, err := s.Authenticator.AuthenticateRequest(r)
		if err != nil || !ok {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		var denied authorizer.Attributes
		for _, subresource := range subresources(r.URL.Path) {
			attributes := s.attributes(response.User, r.Method, r.URL.Path, subresource)
			decision, _, err := s.Authorizer.Authorize(r.Context(), attributes)
			if err != nil && decision != authorizer.DecisionAllow {
				http.Error(w, fmt.Sprintf("Authorization error (user=%s, verb=%s, resource=%s, subresource=%s)",
					response.User.GetName(), attributes.GetVerb(), attributes.GetResource(), attributes.GetSubresource()), http.StatusInternalServerError)
				return
			}
			if decision == authorizer.DecisionAllow {
				next.ServeHTTP(w, r)
				return
			}
			denied = attributes
		}
		http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=%s, subresource(s)=%v)",
			response.User.GetName(), denied.GetVerb(), denied.GetResource(), subresources(r.URL.Path)), http.StatusForbidden)
	})
}

func (s *Server) attributes(u user.Info, method, path, subresource string) authorizer.Attributes {
	verbs := map[string]string{http.MethodPost: "create", http.MethodGet: "get", http.MethodHead: "get", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"}
	return authorizer.AttributesRecord{
		User: u, Verb: verbs[method], APIGroup: "", APIVersion: "v1", Resource: "nodes", Subresource: subresource, Name: s.NodeName, ResourceRequest: true, Path: path,
	}
}

// subresources of the node a path stands for, the most specific first.
func subresources(path string) []string {
	under := func(prefixes ...string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return path == p || strings.HasPrefix(path, p+"/") })
	}
	switch {
	case under("/stats"):
		return []string{"stats"}
	case under("/metrics"):
		return []string{"metrics"}
	case under("/logs"):
		return []string{"log"}
	case under("/checkpoint"):
		return []string{"checkpoint"}
	case under("/healthz"):
		return []string{"healthz", "proxy"}
	case under("/configz"):
		return []string{"configz", "proxy"}
	case under("/pods", "/runningpods"):
		return []string{"pods", "proxy"}
	}
	return []string{"proxy"}
}
