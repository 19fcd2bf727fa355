package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"k8s.io/component-helpers/auth/rbac/reconciliation"
)

// AdminGroup is the group of the administrators whose kubeconfigs Skiff makes.
const AdminGroup = "kubeadm:cluster-admins"

// ClusterRoles returns the default cluster roles.
func ClusterRoles() []rbacv1.ClusterRole {
	roles := append(people(), components()...)
	own := controllers()
	for _, name := range slices.Sorted(maps.Keys(own)) {
		roles = append(roles, clusterRole(controllerPrefix+name, own[name]...))
	}
	return roles
}

// ClusterRoleBindings returns the default bindings.
func ClusterRoleBindings() []rbacv1.ClusterRoleBinding {
	const authenticated, unauthenticated, accounts = "system:authenticated", "system:unauthenticated", "system:serviceaccounts"
	admins := bindCluster("cluster-admin", group(AdminGroup))
	admins.Name = AdminGroup
	bindings := []rbacv1.ClusterRoleBinding{
		bindCluster("cluster-admin", group("system:masters")),
		admins,
		bindCluster("system:monitoring", group("system:monitoring")),
		bindCluster("system:discovery", group(authenticated)),
		bindCluster("system:basic-user", group(authenticated)),
		bindCluster("system:public-info-viewer", group(authenticated), group(unauthenticated)),
		bindCluster("system:node-proxier", person("system:kube-proxy")),
		bindCluster("system:kube-controller-manager", person("system:kube-controller-manager")),
		bindCluster("system:kube-dns", account("kube-system", "kube-dns")),
		bindCluster("system:kube-scheduler", person("system:kube-scheduler")),
		bindCluster("system:volume-scheduler", person("system:kube-scheduler")),
		// Nodes are authorized one by one, see the node authorizer.
		bindCluster("system:node"),
		bindCluster("system:service-account-issuer-discovery", group(accounts)),
		bindCluster("skiff:servers", group(authenticated)),
		bindCluster("skiff:join-control", group("system:bootstrappers:skiff:control")),
		bindCluster("skiff:join-worker", group("system:bootstrappers:skiff:worker")),
	}
	bindings = append(bindings, certificates()...)
	own := controllers()
	for _, name := range slices.Sorted(maps.Keys(own)) {
		bindings = append(bindings, bindCluster(controllerPrefix+name, account("kube-system", name)))
	}
	return bindings
}

// certificates are the bindings by which machines get certificates and renew
// them, under kubeadm's names.
func certificates() []rbacv1.ClusterRoleBinding {
	named := func(name string, binding rbacv1.ClusterRoleBinding) rbacv1.ClusterRoleBinding {
		binding.Name = name
		return binding
	}
	const role, bootstrappers = "system:certificates.k8s.io:certificatesigningrequests:", "system:bootstrappers"
	return []rbacv1.ClusterRoleBinding{
		named("kubeadm:kubelet-bootstrap", bindCluster("system:node-bootstrapper", group(bootstrappers))),
		named("kubeadm:node-autoapprove-bootstrap", bindCluster(role+"nodeclient", group(bootstrappers))),
		named("kubeadm:node-autoapprove-certificate-rotation", bindCluster(role+"selfnodeclient", group("system:nodes"))),
		bindCluster("skiff:certificatesigningrequests:proxyclient", group(bootstrappers)),
		bindCluster("skiff:certificatesigningrequests:selfproxyclient", person("system:kube-proxy")),
	}
}

// Reconcile puts the policy into the API. It is idempotent; the namespaces
// kube-system and kube-public are made when they are missing.
func Reconcile(ctx context.Context, client kubernetes.Interface) error {
	var errs []error
	try := func(what string, run func() error) {
		// Another API server may be doing the same at this moment.
		if err := retry.RetryOnConflict(retry.DefaultBackoff, run); err != nil {
			errs = append(errs, fmt.Errorf("put default %s into the API: %w", what, err))
		}
	}
	rbac := client.RbacV1()
	for _, role := range ClusterRoles() {
		try("ClusterRole "+role.Name, func() error {
			_, err := (&reconciliation.ReconcileRoleOptions{
				Role: reconciliation.ClusterRoleRuleOwner{ClusterRole: &role}, Confirm: true,
				Client: reconciliation.ClusterRoleModifier{Client: rbac.ClusterRoles()},
			}).Run()
			return err
		})
	}
	for _, binding := range ClusterRoleBindings() {
		try("ClusterRoleBinding "+binding.Name, func() error {
			_, err := (&reconciliation.ReconcileRoleBindingOptions{
				RoleBinding: reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: &binding}, Confirm: true,
				Client: reconciliation.ClusterRoleBindingClientAdapter{Client: rbac.ClusterRoleBindings()},
			}).Run()
			return err
		})
	}
	roles, bindings := local()
	for _, role := range roles {
		try("Role "+role.Namespace+"/"+role.Name, func() error {
			_, err := (&reconciliation.ReconcileRoleOptions{
				Role: reconciliation.RoleRuleOwner{Role: &role}, Confirm: true,
				Client: reconciliation.RoleModifier{Client: rbac, NamespaceClient: client.CoreV1().Namespaces()},
			}).Run()
			return err
		})
	}
	for _, binding := range bindings {
		try("RoleBinding "+binding.Namespace+"/"+binding.Name, func() error {
			_, err := (&reconciliation.ReconcileRoleBindingOptions{
				RoleBinding: reconciliation.RoleBindingAdapter{RoleBinding: &binding}, Confirm: true,
				Client: reconciliation.RoleBindingClientAdapter{Client: rbac, NamespaceClient: client.CoreV1().Namespaces()},
			}).Run()
			return err
		})
	}
	return errors.Join(errs...)
}
