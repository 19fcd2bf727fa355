package token

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
)

// deletionGrace is how long after its object's deletion time a token still
// counts, so that a pod can clean up behind itself (as upstream).
const deletionGrace = 60 * time.Second

// Objects reads what tokens are bound to. An object that is not there is an error.
type Objects interface {
	ServiceAccount(namespace, name string) (*corev1.ServiceAccount, error)
	Pod(namespace, name string) (*corev1.Pod, error)
	Secret(namespace, name string) (*corev1.Secret, error)
	Node(name string) (*corev1.Node, error)
}

// Authenticator checks service account tokens. It implements
// authenticator.Token and is safe for concurrent use.
type Authenticator struct {
	issuer    string
	keys      map[string]any // public keys by id
	audiences authenticator.Audiences
	objects   Objects
}

// NewAuthenticator returns an authenticator for tokens of the issuer signed
// with one of the PEM public keys. audiences are what this API server is
// called in tokens.
func NewAuthenticator(issuer string, publicPEM []byte, audiences []string, objects Objects) (*Authenticator, error) {
	a := &Authenticator{issuer: issuer, keys: map[string]any{}, audiences: audiences, objects: objects}
	for rest := publicPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("service account public key: %w", err)
		}
		id, err := keyID(key)
		if err != nil {
			return nil, err
		}
		a.keys[id] = key
	}
	if len(a.keys) == 0 {
		return nil, errors.New("service account public key: no PEM block found")
	}
	return a, nil
}

// errForeign is why a token is left to other authenticators.
var errForeign = errors.New("not a token of this issuer")

// AuthenticateToken implements authenticator.Token.
func (a *Authenticator) AuthenticateToken(ctx context.Context, text string) (*authenticator.Response, bool, error) {
	if !a.claims(text) {
		return nil, false, nil
	}
	public, binding, err := a.verify(text)
	if errors.Is(err, errForeign) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	wanted, specified := authenticator.AudiencesFrom(ctx)
	if !specified {
		wanted = a.audiences
	}
	matching := authenticator.Audiences(public.Audience).Intersect(wanted)
	if len(matching) == 0 {
		return nil, false, fmt.Errorf("token audiences %q is invalid for the target audiences %q", []string(public.Audience), []string(wanted))
	}
	info, err := a.validate(public, binding)
	if err != nil {
		return nil, false, err
	}
	return &authenticator.Response{User: info.UserInfo(), Audiences: matching}, true, nil
}

// claims says whether the unverified payload names our issuer, which is
// cheaper than a signature.
func (a *Authenticator) claims(text string) bool {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return false
	}
	var unverified struct {
		Issuer string `json:"iss"`
	}
	return json.Unmarshal(payload, &unverified) == nil && unverified.Issuer == a.issuer
}

func (a *Authenticator) verify(text string) (*jwt.Claims, *Binding, error) {
	parsed, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.ES512})
	if err != nil || len(parsed.Headers) != 1 {
		return nil, nil, errForeign
	}
	candidates := a.keys
	if key, known := a.keys[parsed.Headers[0].KeyID]; known {
		candidates = map[string]any{parsed.Headers[0].KeyID: key}
	}
	public, private := &jwt.Claims{}, &privateClaims{}
	verified := false
	for _, key := range candidates {
		if parsed.Claims(key, public, private) == nil {
			verified = true
			break
		}
	}
	if !verified {
		return nil, nil, errors.New("invalid bearer token: no key of this cluster has signed it")
	}
	// A token of another API server may come from a clock that is a little ahead.
	if err := public.ValidateWithLeeway(jwt.Expected{Issuer: a.issuer, Time: time.Now()}, jwt.DefaultLeeway); err != nil {
		if errors.Is(err, jwt.ErrExpired) {
			return nil, nil, errors.New("service account token has expired")
		}
		return nil, nil, fmt.Errorf("service account token could not be validated: %w", err)
	}
	return public, &private.Kubernetes, nil
}

// validate checks that everything the token is bound to is still there and the
// same, and not long deleted.
func (a *Authenticator) validate(public *jwt.Claims, b *Binding) (*serviceaccount.ServiceAccountInfo, error) {
	alive := func(what string, want *Reference, uid string, deleted *metav1.Time) error {
		if want.UID != uid {
			return fmt.Errorf("%s UID (%s) does not match claim (%s)", what, uid, want.UID)
		}
		if deleted != nil && time.Since(deleted.Time) > deletionGrace {
			return fmt.Errorf("%s has been deleted", what)
		}
		return nil
	}
	account, err := a.objects.ServiceAccount(b.Namespace, b.ServiceAccount.Name)
	if err != nil {
		return nil, fmt.Errorf("service account %s/%s has been deleted: %w", b.Namespace, b.ServiceAccount.Name, err)
	}
	if err := alive("service account", &b.ServiceAccount, string(account.UID), account.DeletionTimestamp); err != nil {
		return nil, err
	}
	info := &serviceaccount.ServiceAccountInfo{
		Namespace: b.Namespace, Name: b.ServiceAccount.Name, UID: b.ServiceAccount.UID, CredentialID: "JTI=" + public.ID,
	}
	if b.Secret != nil {
		secret, err := a.objects.Secret(b.Namespace, b.Secret.Name)
		if err != nil {
			return nil, fmt.Errorf("service account token has been invalidated: %w", err)
		}
		if err := alive("secret", b.Secret, string(secret.UID), secret.DeletionTimestamp); err != nil {
			return nil, err
		}
	}
	if b.Pod != nil {
		pod, err := a.objects.Pod(b.Namespace, b.Pod.Name)
		if err != nil {
			return nil, fmt.Errorf("service account token has been invalidated: %w", err)
		}
		if err := alive("pod", b.Pod, string(pod.UID), pod.DeletionTimestamp); err != nil {
			return nil, err
		}
		info.PodName, info.PodUID = b.Pod.Name, b.Pod.UID
	}
	if b.Node != nil {
		info.NodeName, info.NodeUID = b.Node.Name, b.Node.UID
		// A pod's token only tells its node; a node's own token dies with it.
		if b.Pod == nil {
			node, err := a.objects.Node(b.Node.Name)
			if err != nil {
				return nil, fmt.Errorf("service account token has been invalidated: %w", err)
			}
			if err := alive("node", b.Node, string(node.UID), node.DeletionTimestamp); err != nil {
				return nil, err
			}
		}
	}
	return info, nil
}
