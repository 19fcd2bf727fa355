package authentication

import (
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/skiff-run/skiff/control/registry"
)

// Group builds the authentication.k8s.io group. The authenticator of deps is
// read at each request.
func Group(deps *registry.Dependencies) (registry.Group, error) {
	return registry.Group{Name: authenticationv1.GroupName, Versions: map[string]registry.Storages{"v1": {
		"tokenreviews":       &tokenReviews{deps},
		"selfsubjectreviews": &selfSubjectReviews{},
	}}}, nil
}
