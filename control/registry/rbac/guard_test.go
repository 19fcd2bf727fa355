package rbac

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	authorizer "github.com/skiff-run/skiff/control/auth/rbac"
	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/scheme"
	"github.com/skiff-run/skiff/control/storage"
	"github.com/skiff-run/skiff/control/storage/cached"
	"github.com/skiff-run/skiff/raftstore"
)

// fixed is a source in which each user has one ClusterRole of the same name.
type fixed map[string][]rbacv1.PolicyRule

func (f fixed) Role(_, name string) (*rbacv1.Role, error) {
	return nil, apierrors.NewNotFound(rbacv1.Resource("roles"), name)
}

func (f fixed) RoleBindings(string) ([]*rbacv1.RoleBinding, error) { return nil, nil }

func (f fixed) ClusterRole(name string) (*rbacv1.ClusterRole, error) {
	if rules, found := f[name]; found {
		return &rbacv1.ClusterRole{Rules: rules}, nil
	}
	return nil, apierrors.NewNotFound(rbacv1.Resource("clusterroles"), name)
}

func (f fixed) ClusterRoleBindings() ([]*rbacv1.ClusterRoleBinding, error) {
	var out []*rbacv1.ClusterRoleBinding
	for name := range f {
		out = append(out, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}},
		})
	}
	return out, nil
}

func rule(verbs, groups, resources string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: strings.Fields(verbs), APIGroups: strings.Split(groups, ","), Resources: strings.Fields(resources)}
}

// newGroup builds the group on a real store.
func newGroup(t *testing.T, source fixed) (context.Context, registry.Storages) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	store, err := raftstore.Open(ctx, raftstore.Options{Dir: t.TempDir(), MemberID: "one", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	s, err := scheme.New()
	if err != nil {
		t.Fatal(err)
	}
	deps := &registry.Dependencies{Scheme: s, RESTOptions: &storage.Options{Store: store, Hub: cached.NewHub(store), Scheme: s.Scheme, Codecs: s.Codecs}}
	group, err := Group(deps)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, each := range group.Versions["v1"] {
			each.Destroy()
		}
	})
	// As in the server, these come after the group.
	deps.RBAC = authorizer.New(source)
	deps.Authorizer, deps.Rules = deps.RBAC, deps.RBAC
	return ctx, group.Versions["v1"]
}

// as is the context of a user's request.
func as(ctx context.Context, who, namespace, resource, name string, groups ...string) context.Context {
	ctx = request.WithUser(request.WithNamespace(ctx, namespace), &user.DefaultInfo{Name: who, Groups: groups})
	return request.WithRequestInfo(ctx, &request.RequestInfo{
		IsResourceRequest: true, APIGroup: rbacv1.GroupName, APIVersion: "v1", Resource: resource, Name: name, Namespace: namespace,
	})
}

func create(ctx context.Context, storages registry.Storages, resource string, object runtime.Object) error {
	_, err := storages[resource].(rest.Creater).Create(ctx, object, rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	return err
}

func TestNobodyGrantsWhatTheyDoNotHold(t *testing.T) {
	t.Parallel()
	ctx, storages := newGroup(t, fixed{
		"reader":    {rule("get list", "", "pods")},
		"escalator": {rule("escalate", rbacv1.GroupName, "roles clusterroles")},
		"binder":    {{Verbs: []string{"bind"}, APIGroups: []string{rbacv1.GroupName}, Resources: []string{"clusterroles"}, ResourceNames: []string{"reader"}}},
		"admin":     {rule("*", "*", "*"), {Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}},
	})
	role := func(name, verbs string) *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "dev"}, Rules: []rbacv1.PolicyRule{rule(verbs, "", "pods")}}
	}
	binding := func(name, role string) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "dev"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		}
	}
	aggregated := func(name string) *rbacv1.ClusterRole {
		return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, AggregationRule: &rbacv1.AggregationRule{
			ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"a": "b"}}},
		}}
	}
	for name, tc := range map[string]struct {
		who, group, resource string
		object               runtime.Object
		refused              string
	}{
		"a role within one's rights": {who: "reader", resource: "roles", object: role("a", "get")},
		"a role beyond one's rights": {who: "reader", resource: "roles", object: role("b", "get delete watch"),
			refused: "roles.rbac.authorization.k8s.io \"b\" is forbidden: user \"reader\" (groups=[]) is attempting to grant RBAC permissions not currently held:\n" +
				`{APIGroups:[""], Resources:["pods"], Verbs:["delete" "watch"]}`},
		"a role of someone who may escalate":         {who: "escalator", resource: "roles", object: role("c", "delete")},
		"a role of the privileged group":             {who: "root", group: user.SystemPrivilegedGroup, resource: "roles", object: role("d", "delete")},
		"a binding of a role one holds":              {who: "reader", resource: "rolebindings", object: binding("a", "reader")},
		"a binding of a role one may bind":           {who: "binder", resource: "rolebindings", object: binding("b", "reader")},
		"a binding of another role":                  {who: "binder", resource: "rolebindings", object: binding("c", "admin"), refused: "not currently held"},
		"a binding of a role that is not there":      {who: "reader", resource: "rolebindings", object: binding("d", "gone"), refused: `clusterroles.rbac.authorization.k8s.io "gone" not found`},
		"an aggregation without all rights":          {who: "reader", resource: "clusterroles", object: aggregated("a"), refused: "must have cluster-admin privileges to use the aggregationRule"},
		"an aggregation with all rights":             {who: "admin", resource: "clusterroles", object: aggregated("b")},
		"an aggregation of someone who may escalate": {who: "escalator", resource: "clusterroles", object: aggregated("c")},
	} {
		t.Run(name, func(t *testing.T) {
			namespace := "dev"
			if tc.resource == "clusterroles" {
				namespace = ""
			}
			var groups []string
			if tc.group != "" {
				groups = append(groups, tc.group)
			}
			err := create(as(ctx, tc.who, namespace, tc.resource, "", groups...), storages, tc.resource, tc.object)
			switch {
			case tc.refused == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tc.refused != "" && (err == nil || !strings.Contains(err.Error(), tc.refused)):
				t.Errorf("got %v, want %q", err, tc.refused)
			}
		})
	}
}

func TestUpdatesAreGuardedToo(t *testing.T) {
	t.Parallel()
	ctx, storages := newGroup(t, fixed{"reader": {rule("get", "", "pods")}})
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "dev", Finalizers: []string{"skiff.dev/a"}}, Rules: []rbacv1.PolicyRule{rule("delete", "", "pods")}}
	if err := create(as(ctx, "root", "dev", "roles", "", user.SystemPrivilegedGroup), storages, "roles", role); err != nil {
		t.Fatal(err)
	}
	update := func(change func(*rbacv1.Role)) error {
		info := rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
			object := old.DeepCopyObject().(*rbacv1.Role)
			change(object)
			return object, nil
		})
		_, _, err := storages["roles"].(rest.Updater).Update(as(ctx, "reader", "dev", "roles", "web"), "web", info,
			rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
		return err
	}
	if err := update(func(r *rbacv1.Role) { r.Labels = map[string]string{"a": "b"} }); !apierrors.IsForbidden(err) {
		t.Errorf("a label on a role with more rights gives %v, want 403", err)
	}
	if err := update(func(r *rbacv1.Role) { r.Finalizers = nil }); err != nil {
		t.Errorf("to drop a finalizer gives %v", err)
	}
	if err := update(func(r *rbacv1.Role) { r.Rules = []rbacv1.PolicyRule{rule("get", "", "pods")} }); err != nil {
		t.Errorf("to cut a role down to one's own rights gives %v", err)
	}
}
