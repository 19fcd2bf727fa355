package bootstrap

import (
	rbacv1 "k8s.io/api/rbac/v1"
)

// components are the roles of the cluster's own parts.
func components() []rbacv1.ClusterRole {
	return []rbacv1.ClusterRole{
		clusterRole("system:heapster",
			on(read, "core", "events pods nodes namespaces"),
			on(read, "extensions", "deployments")),
		clusterRole("system:node", nodeRules()...),
		clusterRole("system:node-problem-detector",
			on("get", "core", "nodes"), on("patch", "core", "nodes/status"), recordEvents()),
		clusterRole("system:node-bootstrapper", on("create get list watch", "certificates", "certificatesigningrequests")),
		clusterRole("system:auth-delegator",
			on("create", "authentication", "tokenreviews"), on("create", "authorization", "subjectaccessreviews")),
		clusterRole("system:kube-aggregator", on(read, "core", "services endpoints")),
		clusterRole("system:kube-controller-manager",
			recordEvents(),
			on("create", "coordination", "leases"),
			on("get update", "coordination", "leases", "kube-controller-manager"),
			on("create", "core", "secrets serviceaccounts"),
			on("delete", "core", "secrets"),
			on("get", "core", "namespaces secrets serviceaccounts configmaps"),
			on("update", "core", "secrets serviceaccounts"),
			on("create", "authentication", "tokenreviews"),
			on("create", "authorization", "subjectaccessreviews"),
			on("list watch", "*", "*"),
			on("create", "core", "serviceaccounts/token")),
		clusterRole("system:kube-dns", on("list watch", "core", "endpoints services")),
		clusterRole("system:persistent-volume-provisioner",
			on("get list watch create delete", "core", "persistentvolumes"),
			on("get list watch update", "core", "persistentvolumeclaims"),
			on(read, "storage", "storageclasses"),
			on("watch", "core", "events"),
			recordEvents()),
		clusterRole("system:volume-scheduler",
			on("get list watch patch update", "core", "persistentvolumes"),
			on(read, "storage", "storageclasses"),
			on("get list watch patch update", "core", "persistentvolumeclaims")),
		clusterRole("system:certificates.k8s.io:certificatesigningrequests:nodeclient", on("create", "certificates", "certificatesigningrequests/nodeclient")),
		clusterRole("system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", on("create", "certificates", "certificatesigningrequests/selfnodeclient")),
		clusterRole("skiff:certificatesigningrequests:proxyclient", on("create", "certificates", "certificatesigningrequests/proxyclient")),
		// A proxy renews its certificate, and has nothing to do with those of others.
		clusterRole("skiff:certificatesigningrequests:selfproxyclient",
			on("create get list watch", "certificates", "certificatesigningrequests"),
			on("create", "certificates", "certificatesigningrequests/selfproxyclient")),
		clusterRole("system:certificates.k8s.io:legacy-unknown-approver", on("approve", "certificates", "signers", "kubernetes.io/legacy-unknown")),
		clusterRole("system:certificates.k8s.io:kubelet-serving-approver", on("approve", "certificates", "signers", "kubernetes.io/kubelet-serving")),
		clusterRole("system:certificates.k8s.io:kube-apiserver-client-approver", on("approve", "certificates", "signers", "kubernetes.io/kube-apiserver-client")),
		clusterRole("system:certificates.k8s.io:kube-apiserver-client-kubelet-approver", on("approve", "certificates", "signers", "kubernetes.io/kube-apiserver-client-kubelet")),
		clusterRole("system:service-account-issuer-discovery", at("get",
			"/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks", "/openid/v1/jwks/")),
		clusterRole("system:kubelet-api-admin",
			on(read, "core", "nodes"), on("proxy", "core", "nodes"),
			on("*", "core", "nodes/proxy nodes/metrics nodes/stats nodes/log"),
			on("*", "core", "nodes/pods nodes/healthz nodes/configz")),
		clusterRole("system:node-proxier",
			on("list watch", "core", "services endpoints"), on(read, "core", "nodes"), recordEvents(),
			on("list watch", "networking", "servicecidrs"), on("list watch", "discovery", "endpointslices"),
			// The proxy enforces NetworkPolicies too, and has to know whom they select.
			on("list watch", "networking", "networkpolicies"), on("list watch", "core", "pods namespaces")),
		clusterRole("system:kube-scheduler", schedulerRules()...),
	}
}

func schedulerRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		recordEvents(),
		on("create", "coordination", "leases"),
		on("get update list watch", "coordination", "leases", "kube-scheduler"),
		on(read+" "+write, "coordination", "leasecandidates"),
		on(read, "core", "nodes"),
		on("get list watch delete", "core", "pods"),
		on("create", "core", "pods/binding bindings"),
		on("patch update", "core", "pods/status"),
		on(read, "core", "services replicationcontrollers"),
		on(read, "apps extensions", "replicasets"),
		on(read, "apps", "statefulsets"),
		on(read, "policy", "poddisruptionbudgets"),
		on(read, "core", "persistentvolumeclaims persistentvolumes"),
		on("create", "authentication", "tokenreviews"),
		on("create", "authorization", "subjectaccessreviews"),
		on(read, "storage", "csinodes volumeattachments csidrivers csistoragecapacities"),
		on(read, "core", "namespaces"),
		on(read, "resource", "deviceclasses resourceslices"),
		on("get list watch patch update", "resource", "resourceclaims resourceclaims/status"),
		on("update", "core", "pods/finalizers"),
	}
}

// nodeRules are the outer bound of what a node may do; the node authorizer and
// NodeRestriction narrow them to what concerns that node. The role is bound to
// nobody.
func nodeRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		on("create", "authentication", "tokenreviews"),
		on("create", "authorization", "subjectaccessreviews localsubjectaccessreviews"),
		on(read, "core", "services"),
		on("create get list watch", "core", "nodes"),
		on("update patch", "core", "nodes/status"),
		on("update patch", "core", "nodes"),
		on("create update patch", "core events", "events"),
		on(read, "core", "pods"),
		on("create delete", "core", "pods"),
		on("update patch", "core", "pods/status"),
		on("create", "core", "pods/eviction"),
		on("get list watch", "core", "secrets configmaps"),
		on("get", "core", "persistentvolumeclaims persistentvolumes"),
		// Those that are directories of the node, see control/auth/node.
		on("list watch update patch", "core", "persistentvolumes"),
		on("get", "core", "endpoints"),
		on("create get list watch", "certificates", "certificatesigningrequests"),
		on("get create update patch delete", "coordination", "leases"),
		on("get", "storage", "volumeattachments"),
		on("create", "core", "serviceaccounts/token"),
		on("get update patch", "core", "persistentvolumeclaims/status"),
		on(read, "storage", "csidrivers"),
		on("get create update patch delete", "storage", "csinodes"),
		on(read, "node", "runtimeclasses"),
		on("get", "resource", "resourceclaims"),
		on("deletecollection", "resource", "resourceslices"),
		on(read, "certificates", "clustertrustbundles"),
		on("get", "core", "serviceaccounts"),
		on("get list watch create", "certificates", "podcertificaterequests"),
	}
}
