package authorization

import (
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/skiff-run/skiff/control/registry"
)

// Group builds the authorization.k8s.io group. The authorizer of deps is read
// at each request.
func Group(deps *registry.Dependencies) (registry.Group, error) {
	return registry.Group{Name: authorizationv1.GroupName, Versions: map[string]registry.Storages{"v1": {
		"subjectaccessreviews":      subjectAccessReviews(deps),
		"selfsubjectaccessreviews":  selfSubjectAccessReviews(deps),
		"localsubjectaccessreviews": localSubjectAccessReviews(deps),
		"selfsubjectrulesreviews":   selfSubjectRulesReviews(deps),
	}}}, nil
}
