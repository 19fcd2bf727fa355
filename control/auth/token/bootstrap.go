package token

import (
	"context"
	"crypto/subtle"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/util"
	"k8s.io/cluster-bootstrap/util/secrets"
)

// BootstrapAuthenticator checks bootstrap tokens, id.secret, against the
// Secrets bootstrap-token-<id> in kube-system. It implements
// authenticator.Token.
type BootstrapAuthenticator struct{ objects Objects }

// NewBootstrapAuthenticator returns one that reads Secrets through objects.
func NewBootstrapAuthenticator(objects Objects) *BootstrapAuthenticator {
	return &BootstrapAuthenticator{objects: objects}
}

// AuthenticateToken implements authenticator.Token. Every reason to refuse
// looks alike to the client.
func (b *BootstrapAuthenticator) AuthenticateToken(_ context.Context, text string) (*authenticator.Response, bool, error) {
	parts := util.BootstrapTokenRegexp.FindStringSubmatch(text)
	if len(parts) != 3 {
		return nil, false, nil
	}
	id, given := parts[1], parts[2]
	secret, err := b.objects.Secret(metav1.NamespaceSystem, api.BootstrapTokenSecretPrefix+id)
	if err != nil || secret.DeletionTimestamp != nil || secret.Type != corev1.SecretType(api.SecretTypeBootstrapToken) {
		return nil, false, nil
	}
	if subtle.ConstantTimeCompare(secret.Data[api.BootstrapTokenSecretKey], []byte(given)) != 1 ||
		string(secret.Data[api.BootstrapTokenIDKey]) != id ||
		secrets.HasExpired(secret, time.Now()) ||
		string(secret.Data[api.BootstrapTokenUsageAuthentication]) != "true" {
		return nil, false, nil
	}
	groups, err := secrets.GetGroups(secret)
	if err != nil {
		return nil, false, nil
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: api.BootstrapUserPrefix + id, Groups: groups}}, true, nil
}
