package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
)

// objects is a set of objects by kind and name.
type objects map[string]metav1.ObjectMeta

func (o objects) get(key string) (metav1.ObjectMeta, error) {
	meta, found := o[key]
	if !found {
		return meta, errors.New(key + " not found")
	}
	return meta, nil
}
func (o objects) ServiceAccount(namespace, name string) (*corev1.ServiceAccount, error) {
	meta, err := o.get("sa/" + namespace + "/" + name)
	return &corev1.ServiceAccount{ObjectMeta: meta}, err
}
func (o objects) Pod(namespace, name string) (*corev1.Pod, error) {
	meta, err := o.get("pod/" + namespace + "/" + name)
	return &corev1.Pod{ObjectMeta: meta}, err
}
func (o objects) Secret(namespace, name string) (*corev1.Secret, error) {
	meta, err := o.get("secret/" + namespace + "/" + name)
	secret := &corev1.Secret{ObjectMeta: meta, Type: "bootstrap.kubernetes.io/token", Data: map[string][]byte{}}
	for key, value := range meta.Annotations {
		secret.Data[key] = []byte(value)
	}
	return secret, err
}
func (o objects) Node(name string) (*corev1.Node, error) {
	meta, err := o.get("node/" + name)
	return &corev1.Node{ObjectMeta: meta}, err
}

func uid(text string) metav1.ObjectMeta { return metav1.ObjectMeta{UID: types.UID(text)} }

func keys(t *testing.T) (private, public []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	publicDER, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER})
}

const issuerURL = "https://kubernetes.default.svc.cluster.local"

func TestATokenLivesAndDiesWithWhatItIsBoundTo(t *testing.T) {
	t.Parallel()
	private, public := keys(t)
	otherPrivate, _ := keys(t)
	long, short := metav1.NewTime(time.Now().Add(-time.Hour)), metav1.NewTime(time.Now().Add(-time.Second))
	all := func(change func(objects)) objects {
		o := objects{"sa/default/robot": uid("s1"), "pod/default/p": uid("p1"), "secret/default/legacy": uid("x1"), "node/n": uid("n1")}
		change(o)
		return o
	}
	same := func(objects) {}
	podBound := Binding{Namespace: "default", ServiceAccount: Reference{"robot", "s1"}, Pod: &Reference{"p", "p1"}, Node: &Reference{"n", "n1"}}
	for name, tc := range map[string]struct {
		objects   objects
		binding   Binding
		audiences []string
		life      time.Duration
		key       []byte
		want      string // part of the error; empty: accepted; "-": left to others
	}{
		"a good one":                      {objects: all(same), binding: podBound},
		"for somebody else":               {objects: all(same), binding: podBound, audiences: []string{"vault"}, want: "audiences"},
		"expired":                         {objects: all(same), binding: podBound, life: -time.Minute, want: "expired"},
		"signed by a stranger":            {objects: all(same), binding: podBound, key: otherPrivate, want: "no key of this cluster"},
		"its service account is gone":     {objects: all(func(o objects) { delete(o, "sa/default/robot") }), binding: podBound, want: "deleted"},
		"its account was made anew":       {objects: all(func(o objects) { o["sa/default/robot"] = uid("s2") }), binding: podBound, want: "does not match"},
		"its pod is gone":                 {objects: all(func(o objects) { delete(o, "pod/default/p") }), binding: podBound, want: "invalidated"},
		"another pod has the name":        {objects: all(func(o objects) { o["pod/default/p"] = uid("p2") }), binding: podBound, want: "does not match"},
		"its pod is going":                {objects: all(func(o objects) { o["pod/default/p"] = metav1.ObjectMeta{UID: "p1", DeletionTimestamp: &short} }), binding: podBound},
		"its pod should long be gone":     {objects: all(func(o objects) { o["pod/default/p"] = metav1.ObjectMeta{UID: "p1", DeletionTimestamp: &long} }), binding: podBound, want: "has been deleted"},
		"its pod's node is gone":          {objects: all(func(o objects) { delete(o, "node/n") }), binding: podBound},
		"a node's own, and the node gone": {objects: all(func(o objects) { delete(o, "node/n") }), binding: Binding{Namespace: "default", ServiceAccount: Reference{"robot", "s1"}, Node: &Reference{"n", "n1"}}, want: "invalidated"},
		"its secret is gone":              {objects: all(func(o objects) { delete(o, "secret/default/legacy") }), binding: Binding{Namespace: "default", ServiceAccount: Reference{"robot", "s1"}, Secret: &Reference{"legacy", "x1"}}, want: "invalidated"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.key == nil {
				tc.key = private
			}
			if tc.life == 0 {
				tc.life = time.Hour
			}
			if tc.audiences == nil {
				tc.audiences = []string{issuerURL}
			}
			issuer, err := NewIssuer(issuerURL, tc.key)
			if err != nil {
				t.Fatal(err)
			}
			issued, err := issuer.Issue(tc.binding, tc.audiences, tc.life)
			if err != nil {
				t.Fatal(err)
			}
			a, err := NewAuthenticator(issuerURL, public, []string{issuerURL}, tc.objects)
			if err != nil {
				t.Fatal(err)
			}
			response, ok, err := a.AuthenticateToken(t.Context(), issued.Token)
			if tc.want == "" {
				if err != nil || !ok || response.User.GetName() != "system:serviceaccount:default:robot" ||
					!slices.Contains(response.User.GetGroups(), "system:serviceaccounts:default") || response.User.GetUID() != "s1" {
					t.Errorf("got %v %v %v", response, ok, err)
				}
				return
			}
			if ok || err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v %v, want an error with %q", ok, err, tc.want)
			}
		})
	}
}

func TestATokenForTheAudienceThatIsAskedFor(t *testing.T) {
	t.Parallel()
	private, public := keys(t)
	issuer, err := NewIssuer(issuerURL, private)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := issuer.Issue(Binding{Namespace: "default", ServiceAccount: Reference{"robot", "s1"}}, []string{"vault", "db"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAuthenticator(issuerURL, public, []string{issuerURL}, objects{"sa/default/robot": uid("s1")})
	if err != nil {
		t.Fatal(err)
	}
	response, ok, err := a.AuthenticateToken(authenticator.WithAudiences(t.Context(), []string{"vault"}), issued.Token)
	if err != nil || !ok || !slices.Equal(response.Audiences, authenticator.Audiences{"vault"}) {
		t.Errorf("got %v %v %v", response, ok, err)
	}
}

func TestOtherPeoplesTokensAreLeftToThem(t *testing.T) {
	t.Parallel()
	private, public := keys(t)
	foreign, err := NewIssuer("https://elsewhere", private)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := foreign.Issue(Binding{}, []string{issuerURL}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAuthenticator(issuerURL, public, []string{issuerURL}, objects{})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{issued.Token, "abcdef.0123456789abcdef", "", "a.b.c"} {
		if _, ok, err := a.AuthenticateToken(t.Context(), text); ok || err != nil {
			t.Errorf("%q: got %v %v", text, ok, err)
		}
	}
}

func TestBootstrapTokens(t *testing.T) {
	t.Parallel()
	good := map[string]string{"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true", "auth-extra-groups": "system:bootstrappers:workers"}
	with := func(key, value string) map[string]string {
		changed := map[string]string{key: value}
		for k, v := range good {
			if k != key {
				changed[k] = v
			}
		}
		return changed
	}
	for name, tc := range map[string]struct {
		data  map[string]string
		token string
		ok    bool
	}{
		"a good one":         {good, "abcdef.0123456789abcdef", true},
		"a wrong secret":     {good, "abcdef.0123456789abcdee", false},
		"an unknown id":      {good, "abcdeg.0123456789abcdef", false},
		"not for logging in": {with("usage-bootstrap-authentication", "false"), "abcdef.0123456789abcdef", false},
		"expired":            {with("expiration", time.Now().Add(-time.Minute).Format(time.RFC3339)), "abcdef.0123456789abcdef", false},
		"not yet expired":    {with("expiration", time.Now().Add(time.Minute).Format(time.RFC3339)), "abcdef.0123456789abcdef", true},
		"a forbidden group":  {with("auth-extra-groups", "system:masters"), "abcdef.0123456789abcdef", false},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBootstrapAuthenticator(objects{"secret/kube-system/bootstrap-token-abcdef": {Annotations: tc.data}})
			response, ok, err := b.AuthenticateToken(t.Context(), tc.token)
			if ok != tc.ok || err != nil {
				t.Fatalf("got %v %v", ok, err)
			}
			if ok && (response.User.GetName() != "system:bootstrap:abcdef" || !slices.Contains(response.User.GetGroups(), "system:bootstrappers:workers")) {
				t.Errorf("got %v", response.User)
			}
		})
	}
}
