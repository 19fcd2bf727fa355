// Package token makes and checks the tokens of service accounts, signed JWTs
// that are bound to objects and die with them, and checks bootstrap tokens by
// which a new machine introduces itself.
//
// It reads the objects a token is bound to through small interfaces and keeps
// nothing: a deleted service account or pod takes its tokens along at once.
package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
)

// Reference names an object and the very instance of it.
type Reference struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

// Binding says whose token it is and what it lives and dies with.
type Binding struct {
	Namespace      string     `json:"namespace,omitempty"`
	ServiceAccount Reference  `json:"serviceaccount,omitzero"`
	Pod            *Reference `json:"pod,omitempty"`
	Secret         *Reference `json:"secret,omitempty"`
	Node           *Reference `json:"node,omitempty"`
	// WarnAfter is when a client should have got itself a newer token.
	WarnAfter *jwt.NumericDate `json:"warnafter,omitempty"`
}

// privateClaims are Kubernetes' part of a token.
type privateClaims struct {
	Kubernetes Binding `json:"kubernetes.io,omitzero"`
}

// Issued is a new token.
type Issued struct {
	Token   string
	Expires time.Time
	// CredentialID is the token's own id as audit logs show it.
	CredentialID string
}

// Issuer signs tokens. It is safe for concurrent use.
type Issuer struct {
	url    string
	signer jose.Signer
	keySet []byte
}

// NewIssuer returns an issuer that signs with a PEM key (EC or PKCS#8) in the
// name of url, https://kubernetes.default.svc.cluster.local.
func NewIssuer(url string, keyPEM []byte) (*Issuer, error) {
	key, err := parsePrivateKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("service account key: %w", err)
	}
	algorithm, err := algorithmOf(key.Public())
	if err != nil {
		return nil, err
	}
	id, err := keyID(key.Public())
	if err != nil {
		return nil, err
	}
	web := jose.JSONWebKey{Key: key, KeyID: id, Algorithm: string(algorithm), Use: "sig"}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: web}, nil)
	if err != nil {
		return nil, fmt.Errorf("service account key: %w", err)
	}
	keySet, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{web.Public()}})
	if err != nil {
		return nil, fmt.Errorf("encode key set: %w", err)
	}
	return &Issuer{url: url, signer: signer, keySet: keySet}, nil
}

// URL is the issuer that tokens name.
func (i *Issuer) URL() string { return i.url }

// KeySet is the JSON Web Key Set by which others can check tokens.
func (i *Issuer) KeySet() []byte { return i.keySet }

// Issue signs a token for the audiences that is valid for life.
func (i *Issuer) Issue(binding Binding, audiences []string, life time.Duration) (Issued, error) {
	now := time.Now()
	claims := jwt.Claims{
		Issuer: i.url, Subject: serviceaccount.MakeUsername(binding.Namespace, binding.ServiceAccount.Name), Audience: audiences,
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(life)), ID: uuid.NewString(),
	}
	token, err := jwt.Signed(i.signer).Claims(claims).Claims(privateClaims{Kubernetes: binding}).Serialize()
	if err != nil {
		return Issued{}, fmt.Errorf("sign token of service account %s/%s: %w", binding.Namespace, binding.ServiceAccount.Name, err)
	}
	return Issued{Token: token, Expires: claims.Expiry.Time(), CredentialID: "JTI=" + claims.ID}, nil
}

func parsePrivateKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no PEM block found")
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	return signer, nil
}

// algorithmOf follows RFC 7518: the curve decides.
func algorithmOf(public crypto.PublicKey) (jose.SignatureAlgorithm, error) {
	key, elliptic := public.(*ecdsa.PublicKey)
	if !elliptic {
		return jose.RS256, nil
	}
	switch bits := key.Params().BitSize; bits {
	case 256:
		return jose.ES256, nil
	case 384:
		return jose.ES384, nil
	case 521:
		return jose.ES512, nil
	default:
		return "", fmt.Errorf("service account key: no algorithm for a curve of %d bits", bits)
	}
}

// keyID is the hash of the public key, as in every Kubernetes cluster.
func keyID(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("encode public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}
