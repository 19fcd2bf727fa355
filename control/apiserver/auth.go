package apiserver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	requestunion "k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	"k8s.io/apiserver/pkg/authentication/request/x509"
	tokencache "k8s.io/apiserver/pkg/authentication/token/cache"
	tokenunion "k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	authorizerunion "k8s.io/apiserver/pkg/authorization/union"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/informers"
	rbaclisters "k8s.io/client-go/listers/rbac/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/skiff-run/skiff/control/auth/node"
	"github.com/skiff-run/skiff/control/auth/rbac"
	"github.com/skiff-run/skiff/control/auth/rbac/bootstrap"
	"github.com/skiff-run/skiff/control/auth/token"
)

// tokenTTL is how long the outcome of checking a token is remembered: long
// enough to spare the signature, short enough for a revoked token (upstream's figure).
const tokenTTL = 10 * time.Second

// identities are the certificates and keys by which clients are known.
type identities struct {
	clientCA, frontProxyCA *dynamiccertificates.DynamicFileCAContent
	serving                *dynamiccertificates.DynamicCertKeyPairContent
	requestHeader          *authenticatorfactory.RequestHeaderConfig
	issuer                 *token.Issuer
	publicKey              []byte
}

func loadIdentities(dir, issuerURL string) (*identities, error) {
	file := func(name string) string { return filepath.Join(dir, name) }
	i := &identities{}
	var err error
	if i.clientCA, err = dynamiccertificates.NewDynamicCAContentFromFile("client-ca", file("ca.crt")); err != nil {
		return nil, fmt.Errorf("load client CA: %w", err)
	}
	if i.frontProxyCA, err = dynamiccertificates.NewDynamicCAContentFromFile("front-proxy-ca", file("front-proxy-ca.crt")); err != nil {
		return nil, fmt.Errorf("load front proxy CA: %w", err)
	}
	if i.serving, err = dynamiccertificates.NewDynamicServingContentFromFiles("serving", file("apiserver.crt"), file("apiserver.key")); err != nil {
		return nil, fmt.Errorf("load serving certificate: %w", err)
	}
	private, err := os.ReadFile(file("sa.key"))
	if err != nil {
		return nil, fmt.Errorf("load service account key: %w", err)
	}
	if i.issuer, err = token.NewIssuer(issuerURL, private); err != nil {
		return nil, fmt.Errorf("%s: %w", file("sa.key"), err)
	}
	if i.publicKey, err = os.ReadFile(file("sa.pub")); err != nil {
		return nil, fmt.Errorf("load service account public key: %w", err)
	}
	i.requestHeader = &authenticatorfactory.RequestHeaderConfig{
		UsernameHeaders: headerrequest.StaticStringSlice{"X-Remote-User"}, UIDHeaders: headerrequest.StaticStringSlice{"X-Remote-Uid"},
		GroupHeaders: headerrequest.StaticStringSlice{"X-Remote-Group"}, ExtraHeaderPrefixes: headerrequest.StaticStringSlice{"X-Remote-Extra-"},
		CAContentProvider: i.frontProxyCA, AllowedClientNames: headerrequest.StaticStringSlice{"front-proxy-client"},
	}
	return i, nil
}

// authenticator knows, in this order: requests of this process, other API
// servers speaking for their users, client certificates, tokens, and nobody.
func (i *identities) authenticator(audiences authenticator.Audiences, objects token.Objects) (authenticator.Request, error) {
	accounts, err := token.NewAuthenticator(i.issuer.URL(), i.publicKey, audiences, objects)
	if err != nil {
		return nil, err
	}
	tokens := tokencache.New(tokenunion.New(accounts, token.NewBootstrapAuthenticator(objects)), false, tokenTTL, tokenTTL)
	h := i.requestHeader
	known := requestunion.New(
		insideAuthenticator{},
		headerAuthenticator{
			headerrequest.NewDynamicVerifyOptionsSecure(h.CAContentProvider.VerifyOptions, h.AllowedClientNames, h.UsernameHeaders, h.UIDHeaders, h.GroupHeaders, h.ExtraHeaderPrefixes),
			h.UsernameHeaders.Value,
		},
		newCertificateAuthenticator(x509.NewDynamic(i.clientCA.VerifyOptions, x509.CommonNameUserConversion)),
		bearertoken.New(tokens), websocket.NewProtocolAuthenticator(tokens),
	)
	return requestunion.NewFailOnError(group.NewAuthenticatedGroupAdder(known), anonymous.NewAuthenticator(nil)), nil
}

// objects reads what tokens are bound to, from the watch caches.
type objects struct{ storages map[string]rest.Storage }

func (o objects) reader(resource string) reader { return reader{o.storages[resource].(rest.Getter)} }

// ServiceAccount implements token.Objects.
func (o objects) ServiceAccount(namespace, name string) (*corev1.ServiceAccount, error) {
	return read[corev1.ServiceAccount](o.reader("serviceaccounts"), namespace, name)
}

// Pod implements token.Objects.
func (o objects) Pod(namespace, name string) (*corev1.Pod, error) {
	return read[corev1.Pod](o.reader("pods"), namespace, name)
}

// Secret implements token.Objects.
func (o objects) Secret(namespace, name string) (*corev1.Secret, error) {
	return read[corev1.Secret](o.reader("secrets"), namespace, name)
}

// Node implements token.Objects.
func (o objects) Node(name string) (*corev1.Node, error) {
	return read[corev1.Node](o.reader("nodes"), "", name)
}

// listers are the roles and bindings as informers keep them.
type listers struct {
	roles               rbaclisters.RoleLister
	roleBindings        rbaclisters.RoleBindingLister
	clusterRoles        rbaclisters.ClusterRoleLister
	clusterRoleBindings rbaclisters.ClusterRoleBindingLister
	// Every request asks for all of these.
	allClusterRoleBindings snapshot[*rbacv1.ClusterRoleBinding]
}

func newListers(factory informers.SharedInformerFactory) (*listers, error) {
	r := factory.Rbac().V1()
	l := &listers{
		roles: r.Roles().Lister(), roleBindings: r.RoleBindings().Lister(),
		clusterRoles: r.ClusterRoles().Lister(), clusterRoleBindings: r.ClusterRoleBindings().Lister(),
	}
	return l, l.allClusterRoleBindings.follow(r.ClusterRoleBindings().Informer())
}

// Role implements rbac.Source.
func (l *listers) Role(namespace, name string) (*rbacv1.Role, error) {
	return l.roles.Roles(namespace).Get(name)
}

// ClusterRole implements rbac.Source.
func (l *listers) ClusterRole(name string) (*rbacv1.ClusterRole, error) {
	return l.clusterRoles.Get(name)
}

// RoleBindings implements rbac.Source.
func (l *listers) RoleBindings(namespace string) ([]*rbacv1.RoleBinding, error) {
	return l.roleBindings.RoleBindings(namespace).List(labels.Everything())
}

// ClusterRoleBindings implements rbac.Source.
func (l *listers) ClusterRoleBindings() ([]*rbacv1.ClusterRoleBinding, error) {
	return l.allClusterRoleBindings.get(func() ([]*rbacv1.ClusterRoleBinding, error) {
		return l.clusterRoleBindings.List(labels.Everything())
	})
}

// byNode indexes pods by the node they are bound to.
const byNode = "node"

// newAuthorizer allows the privileged group everything, narrows nodes to
// themselves, and decides the rest by RBAC.
func newAuthorizer(factory informers.SharedInformerFactory) (authorizer.Authorizer, *rbac.Authorizer, error) {
	pods := factory.Core().V1().Pods().Informer()
	if err := pods.AddIndexers(cache.Indexers{byNode: func(object any) ([]string, error) {
		if pod, ok := object.(*corev1.Pod); ok && pod.Spec.NodeName != "" {
			return []string{pod.Spec.NodeName}, nil
		}
		return nil, nil
	}}); err != nil {
		return nil, nil, fmt.Errorf("index pods by node: %w", err)
	}
	volumes, err := nodeVolumes(factory)
	if err != nil {
		return nil, nil, err
	}
	podsOf := func(name string) []*corev1.Pod {
		found, err := pods.GetIndexer().ByIndex(byNode, name)
		if err != nil {
			return nil
		}
		out := make([]*corev1.Pod, 0, len(found))
		for _, object := range found {
			if pod, ok := object.(*corev1.Pod); ok {
				out = append(out, pod)
			}
		}
		return out
	}
	source, err := newListers(factory)
	if err != nil {
		return nil, nil, err
	}
	roles := rbac.New(source)
	var nodeRules []rbacv1.PolicyRule
	for _, role := range bootstrap.ClusterRoles() {
		if role.Name == "system:node" {
			nodeRules = role.Rules
		}
	}
	all, err := authorizerunion.New(
		authorizerunion.NamedAuthorizer{AuthorizerName: "privileged", Authorizer: authorizerfactory.NewPrivilegedGroups(user.SystemPrivilegedGroup)},
		authorizerunion.NamedAuthorizer{AuthorizerName: "node", Authorizer: node.New(podsOf, volumes, nodeRules, rbac.RulesAllow)},
		authorizerunion.NamedAuthorizer{AuthorizerName: "rbac", Authorizer: roles},
	)
	if err != nil {
		return nil, nil, fmt.Errorf("join authorizers: %w", err)
	}
	return all, roles, nil
}

// apiserverUser is who the server's own requests are made as.
func apiserverUser() user.Info {
	return &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}
}

// reload keeps certificates and CAs as they are on disk until ctx ends.
func (i *identities) reload(ctx context.Context) {
	go i.clientCA.Run(ctx, 1)
	go i.frontProxyCA.Run(ctx, 1)
	go i.serving.Run(ctx, 1)
}
