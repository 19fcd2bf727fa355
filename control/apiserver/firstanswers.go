package apiserver

import (
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-run/skiff/control/auth/rbac/bootstrap"
)

const (
	// firstAnswerLimit is how long a request waits for the objects every cluster
	// has. When they cannot be made, because the store has no leader, reads are
	// answered after it by what is known.
	firstAnswerLimit = 10 * time.Second
	// rolesInterval is how often the authorizer is asked whether it knows the
	// default roles: it reads them from informers, which are milliseconds behind.
	rolesInterval = 5 * time.Millisecond
	// rolesLimit is when somebody may have deleted one meanwhile: all are made again.
	rolesLimit = 5 * time.Second
)

// patient decides as the authorizer does, but about resources only once the
// objects every cluster has are there: before that, agents and proxies, which
// start with the server, would be told that they may not do what they may.
// Administrators need no roles and do not wait; nor does the server itself.
type patient struct {
	authorizer.Authorizer
	complete <-chan struct{}
}

// Authorize implements authorizer.Authorizer.
func (p patient) Authorize(ctx context.Context, request authorizer.Attributes) (authorizer.Decision, string, error) {
	p.wait(ctx, request)
	return p.Authorizer.Authorize(ctx, request)
}

// ConditionsAwareAuthorize implements authorizer.Authorizer.
func (p patient) ConditionsAwareAuthorize(ctx context.Context, request authorizer.Attributes) authorizer.ConditionsAwareDecision {
	p.wait(ctx, request)
	return p.Authorizer.ConditionsAwareAuthorize(ctx, request)
}

func (p patient) wait(ctx context.Context, request authorizer.Attributes) {
	select {
	case <-p.complete:
		return
	default:
	}
	if who := request.GetUser(); !request.IsResourceRequest() || who == nil || slices.Contains(who.GetGroups(), user.SystemPrivilegedGroup) {
		return
	}
	timer := time.NewTimer(firstAnswerLimit)
	defer timer.Stop()
	select {
	case <-p.complete:
	case <-ctx.Done():
	case <-timer.C:
	}
}

// waitForRoles returns once the authorizer knows every default role and binding.
func (s *Server) waitForRoles(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, rolesLimit)
	defer cancel()
	ticker := time.NewTicker(rolesInterval)
	defer ticker.Stop()
	for {
		known, err := bootstrap.Known(s.roles)
		if known || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the authorizer to know the default roles: %w", ctx.Err())
		case <-ticker.C:
		}
	}
}
