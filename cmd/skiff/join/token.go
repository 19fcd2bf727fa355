package join

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/util"
	bootstrapsecrets "k8s.io/cluster-bootstrap/util/secrets"

	"github.com/skiff-run/skiff/internal/operator"
)

// CreateToken makes a join token for the role that ends after ttl.
func (a *Administrator) CreateToken(ctx context.Context, role operator.Role, ttl time.Duration, description string) (string, error) {
	token, err := util.GenerateBootstrapToken()
	if err != nil {
		return "", fmt.Errorf("make token: %w", err)
	}
	id, secret, _ := strings.Cut(token, ".")
	_, err = a.Client.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: api.BootstrapTokenSecretPrefix + id},
		Type:       corev1.SecretType(api.SecretTypeBootstrapToken),
		Data: map[string][]byte{
			api.BootstrapTokenIDKey: []byte(id), api.BootstrapTokenSecretKey: []byte(secret),
			api.BootstrapTokenExpirationKey:       []byte(time.Now().Add(ttl).UTC().Format(time.RFC3339)),
			api.BootstrapTokenUsageAuthentication: []byte("true"), api.BootstrapTokenExtraGroupsKey: []byte(role.Group()),
			api.BootstrapTokenDescriptionKey: []byte(description),
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("keep token %s: %w", id, err)
	}
	return token, nil
}

// Token is a join token as a list shows it: without its secret.
type Token struct {
	ID          string    `json:"id"`
	Role        string    `json:"role"`
	Expires     time.Time `json:"expires,omitzero"`
	Description string    `json:"description,omitempty"`
}

// Tokens lists the cluster's bootstrap tokens, soonest end first. Role is
// "other" for those that "skiff join" cannot use.
func (a *Administrator) Tokens(ctx context.Context) ([]Token, error) {
	secrets, err := a.Client.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(api.SecretTypeBootstrapToken)})
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	tokens := []Token{}
	for i := range secrets.Items {
		secret := &secrets.Items[i]
		token := Token{ID: string(secret.Data[api.BootstrapTokenIDKey]), Role: "other", Description: string(secret.Data[api.BootstrapTokenDescriptionKey])}
		if groups, err := bootstrapsecrets.GetGroups(secret); err == nil {
			switch {
			case slices.Contains(groups, operator.ControlGroup):
				token.Role = string(operator.Control)
			case slices.Contains(groups, operator.WorkerGroup):
				token.Role = string(operator.Worker)
			}
		}
		// A token without an end, or with one nobody can read, shows none.
		token.Expires, _ = time.Parse(time.RFC3339, string(secret.Data[api.BootstrapTokenExpirationKey]))
		tokens = append(tokens, token)
	}
	slices.SortFunc(tokens, func(a, b Token) int { return a.Expires.Compare(b.Expires) })
	return tokens, nil
}

// DeleteToken ends a token, named by its id or in full.
func (a *Administrator) DeleteToken(ctx context.Context, token string) error {
	id, _, _ := strings.Cut(token, ".")
	if !util.IsValidBootstrapTokenID(id) {
		return fmt.Errorf("token %q: give its id, the six characters that \"skiff token list\" shows", id)
	}
	err := a.Client.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, api.BootstrapTokenSecretPrefix+id, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("there is no token %s: see \"skiff token list\"", id)
	}
	if err != nil {
		return fmt.Errorf("delete token %s: %w", id, err)
	}
	return nil
}

// Line is the command that joins a machine with the token.
func (a *Administrator) Line(token string) (string, error) {
	hash, err := hashOf(a.Config.CAData)
	if err != nil {
		return "", fmt.Errorf("the kubeconfig's certificate authority: %w", err)
	}
	return fmt.Sprintf("skiff join %s --token %s --ca-hash %s", a.Config.Host, token, hash), nil
}
