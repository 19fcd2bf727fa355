package bootstrap

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const controllerPrefix = "system:controller:"

// controllers are the roles of the controllers, each bound to the service
// account of its name in kube-system.
func controllers() map[string][]rbacv1.PolicyRule {
	return map[string][]rbacv1.PolicyRule{
		"certificate-controller": {
			on("get list watch delete", "certificates", "certificatesigningrequests"),
			on("update", "certificates", "certificatesigningrequests/status certificatesigningrequests/approval"),
			on("approve", "certificates", "signers", "kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving", "skiff.dev/kube-proxy-client"),
			on("sign", "certificates", "signers", "kubernetes.io/legacy-unknown", "kubernetes.io/kubelet-serving",
				"kubernetes.io/kube-apiserver-client", "kubernetes.io/kube-apiserver-client-kubelet", "skiff.dev/kube-proxy-client"),
			on("create", "authorization", "subjectaccessreviews"),
			// What it compares the names and addresses of a serving certificate with.
			on(read, "core", "nodes services"),
			on(read, "discovery", "endpointslices"),
			recordEvents(),
		},
		// To aggregate is to give rules that the controller itself does not have.
		"clusterrole-aggregation-controller": {on("escalate get list watch update patch", "rbac", "clusterroles")},
		"deployment-controller": {
			on("get list watch update", "extensions apps", "deployments"),
			on("update", "extensions apps", "deployments/status"),
			on("update", "extensions apps", "deployments/finalizers"),
			on("get list watch create update patch delete", "apps extensions", "replicasets"),
			on("get list watch update", "core", "pods"),
			recordEvents(),
		},
		"endpoint-controller": {
			on(read, "core", "services pods"),
			on("get list watch create update delete", "core", "endpoints"),
			on("create", "core", "endpoints/restricted"),
			recordEvents(),
		},
		"endpointslice-controller": {
			on(read, "core", "services pods nodes"),
			on("update", "core", "services/finalizers"),
			on("get list watch create update delete", "discovery", "endpointslices"),
			on("create", "discovery", "endpointslices/restricted"),
			recordEvents(),
		},
		"endpointslicemirroring-controller": {
			on(read, "core", "services endpoints"),
			on("update", "core", "services/finalizers"),
			on("update", "core", "endpoints/finalizers"),
			on("get list watch create update delete", "discovery", "endpointslices"),
			on("create", "discovery", "endpointslices/restricted"),
			recordEvents(),
		},
		"generic-garbage-collector": {
			on("get list watch patch update delete", "*", "*"),
			recordEvents(),
		},
		"namespace-controller": {
			on("get list watch delete", "core", "namespaces"),
			on("update", "core", "namespaces/finalize namespaces/status"),
			on("get list watch delete deletecollection", "*", "*"),
		},
		"node-controller": {
			on("get list watch update delete patch", "core", "nodes"),
			on("patch update", "core", "nodes/status"),
			on("patch update", "core", "pods/status"),
			on("list watch get delete", "core", "pods"),
			on(read, "coordination", "leases"),
			recordEvents(),
		},
		"attachdetach-controller": {
			on("list watch", "core", "persistentvolumes persistentvolumeclaims"),
			on(read, "core", "nodes"),
			on("patch update", "core", "nodes/status"),
			on("list watch", "core", "pods"),
			on("get create delete list watch", "storage", "volumeattachments"),
			on(read, "storage", "csidrivers csinodes"),
			recordEvents(),
		},
		"ephemeral-volume-controller": {
			on(read, "core", "pods"),
			on("update", "core", "pods/finalizers"),
			on("get list watch create", "core", "persistentvolumeclaims"),
			recordEvents(),
		},
		"expand-controller": {
			on("get list watch update patch", "core", "persistentvolumes"),
			on("update patch", "core", "persistentvolumeclaims/status"),
			on(read, "core", "persistentvolumeclaims"),
			recordEvents(),
		},
		"local-path-provisioner": {
			on("get list watch create update delete", "core", "persistentvolumes"),
			on("get list watch update", "core", "persistentvolumeclaims"),
			on(read, "core", "nodes"),
			on(read, "storage", "storageclasses"),
			recordEvents(),
		},
		"persistent-volume-binder": {
			on("get list watch update create delete", "core", "persistentvolumes"),
			on("update", "core", "persistentvolumes/status"),
			on("get list watch update", "core", "persistentvolumeclaims"),
			on("update", "core", "persistentvolumeclaims/status"),
			on("list watch get create delete", "core", "pods"),
			on(read, "storage", "storageclasses"),
			on("list watch", "core", "nodes"),
			on("watch", "core", "events"),
			recordEvents(),
		},
		"pv-protection-controller": {
			on("get list watch update", "core", "persistentvolumes"),
			recordEvents(),
		},
		"pvc-protection-controller": {
			on("get list watch update", "core", "persistentvolumeclaims"),
			on("update", "core", "persistentvolumeclaims/status"),
			on("list watch get", "core", "pods"),
			recordEvents(),
		},
		"pod-garbage-collector": {
			on("list watch delete", "core", "pods"),
			on(read, "core", "nodes"),
			on("patch", "core", "pods/status"),
		},
		"replicaset-controller": {
			on("get list watch update", "apps extensions", "replicasets"),
			on("update", "apps extensions", "replicasets/status"),
			on("update", "apps extensions", "replicasets/finalizers"),
			on("list watch patch create delete", "core", "pods"),
			recordEvents(),
		},
		"root-ca-cert-publisher": {
			on("create update", "core", "configmaps"),
			recordEvents(),
		},
		"service-account-controller": {
			on("create", "core", "serviceaccounts"),
			recordEvents(),
		},
		"service-controller": {
			on(read, "core", "services"),
			on("patch update", "core", "services/status"),
			on(read, "core", "nodes"),
			recordEvents(),
		},
		"service-cidrs-controller": {
			on("get list watch patch update", "networking", "servicecidrs"),
			on("patch update", "networking", "servicecidrs/finalizers servicecidrs/status"),
			on(read, "networking", "ipaddresses"),
			recordEvents(),
		},
	}
}

// local are the roles and bindings of system namespaces.
func local() ([]rbacv1.Role, []rbacv1.RoleBinding) {
	role := func(namespace, name string, rules ...rbacv1.PolicyRule) rbacv1.Role {
		meta := metadata(name)
		meta.Namespace = namespace
		return rbacv1.Role{ObjectMeta: meta, Rules: rules}
	}
	bind := func(namespace, name, role string, subjects ...rbacv1.Subject) rbacv1.RoleBinding {
		meta := metadata(name)
		meta.Namespace = namespace
		return rbacv1.RoleBinding{ObjectMeta: meta, Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role}}
	}
	const system, public = metav1.NamespaceSystem, metav1.NamespacePublic
	signer, cleaner := account(system, "bootstrap-signer"), account(system, "token-cleaner")
	return []rbacv1.Role{
			role(system, "extension-apiserver-authentication-reader", on(read, "core", "configmaps", "extension-apiserver-authentication")),
			role(system, controllerPrefix+"bootstrap-signer", on(read, "core", "secrets")),
			role(system, controllerPrefix+"token-cleaner", on("get list watch delete", "core", "secrets"), recordEvents()),
			role(public, controllerPrefix+"bootstrap-signer",
				on(read, "core", "configmaps"), on("update", "core", "configmaps", "cluster-info"), recordEvents()),
			// Proxies agree by Leases on who announces a load balancer's address; the
			// controller that takes an address back removes its Lease.
			role(public, "skiff:load-balancer-announcer", on("get list watch create update", "coordination", "leases")),
			role(public, controllerPrefix+"service-controller", on("delete", "coordination", "leases")),
			// Machines learn of authorities that are to be trusted.
			role(metav1.NamespaceDefault, "skiff:trusted-authorities", on("get", "core", "configmaps", "kube-root-ca.crt")),
			// Whoever wants to join reads the cluster's authority before it can know anybody.
			role(public, "kubeadm:bootstrap-signer-clusterinfo", on("get", "core", "configmaps", "cluster-info")),
		}, []rbacv1.RoleBinding{
			bind(system, "system::extension-apiserver-authentication-reader", "extension-apiserver-authentication-reader",
				person("system:kube-controller-manager"), person("system:kube-scheduler")),
			bind(system, controllerPrefix+"bootstrap-signer", controllerPrefix+"bootstrap-signer", signer),
			bind(system, controllerPrefix+"token-cleaner", controllerPrefix+"token-cleaner", cleaner),
			bind(public, controllerPrefix+"bootstrap-signer", controllerPrefix+"bootstrap-signer", signer),
			bind(public, "skiff:load-balancer-announcer", "skiff:load-balancer-announcer", person("system:kube-proxy")),
			bind(public, controllerPrefix+"service-controller", controllerPrefix+"service-controller", account(system, "service-controller")),
			bind(metav1.NamespaceDefault, "skiff:trusted-authorities", "skiff:trusted-authorities", group("system:nodes"), person("system:kube-proxy")),
			bind(public, "kubeadm:bootstrap-signer-clusterinfo", "kubeadm:bootstrap-signer-clusterinfo", person("system:anonymous")),
		}
}
