package bootstrap

import (
	rbacv1 "k8s.io/api/rbac/v1"
)

const (
	toAdmin = "rbac.authorization.k8s.io/aggregate-to-admin"
	toEdit  = "rbac.authorization.k8s.io/aggregate-to-edit"
	toView  = "rbac.authorization.k8s.io/aggregate-to-view"
)

// people are the roles for users: everything, a namespace's admin, edit and
// view, and what everybody may ask.
func people() []rbacv1.ClusterRole {
	aggregated := func(name, label string, rules ...rbacv1.PolicyRule) rbacv1.ClusterRole {
		role := clusterRole(name, rules...)
		role.Labels[label] = "true"
		return role
	}
	return []rbacv1.ClusterRole{
		clusterRole("cluster-admin", on("*", "*", "*"), at("*", "*")),
		clusterRole("system:discovery", at("get",
			"/livez", "/readyz", "/healthz", "/version", "/version/", "/openapi", "/openapi/*", "/api", "/api/*", "/apis", "/apis/*")),
		clusterRole("system:monitoring", at("get",
			"/metrics", "/metrics/slis", "/livez", "/readyz", "/healthz", "/livez/*", "/readyz/*", "/healthz/*")),
		clusterRole("system:basic-user",
			on("create", "authorization", "selfsubjectaccessreviews selfsubjectrulesreviews"),
			on("create", "authentication", "selfsubjectreviews")),
		clusterRole("system:public-info-viewer", at("get", "/livez", "/readyz", "/healthz", "/version", "/version/")),

		// Agents and proxies ask where else they find the API.
		clusterRole("skiff:servers", at("get", "/skiff.dev/v1/servers")),
		// A token's holder may ask what it is for, and join in that role.
		clusterRole("skiff:join-control", at("get", "/skiff.dev/v1/join"), at("post", "/skiff.dev/v1/join/control")),
		clusterRole("skiff:join-worker", at("get", "/skiff.dev/v1/join"), at("post", "/skiff.dev/v1/join/worker")),

		aggregate("admin", toAdmin),
		aggregate("edit", toEdit, toAdmin),
		aggregate("view", toView, toEdit),
		aggregated("system:aggregate-to-admin", toAdmin,
			on("create", "authorization", "localsubjectaccessreviews"),
			on(read+" "+write, "rbac", "roles rolebindings")),
		aggregated("system:aggregate-to-edit", toEdit, editRules()...),
		aggregated("system:aggregate-to-view", toView, viewRules()...),
		metricsReader(),
	}
}

// metricsReader lets whoever may look at pods see what they use, as the role that
// comes with metrics-server does.
func metricsReader() rbacv1.ClusterRole {
	role := clusterRole("system:aggregated-metrics-reader", on(read, "metrics", "pods nodes"))
	for _, label := range []string{toAdmin, toEdit, toView} {
		role.Labels[label] = "true"
	}
	return role
}

func editRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		// Reading these gives more than a look.
		on(read, "core", "pods/attach pods/proxy pods/exec pods/portforward secrets services/proxy"),
		on("impersonate", "core", "serviceaccounts"),
		on(write, "core", "pods pods/attach pods/proxy pods/exec pods/portforward"),
		on("create", "core", "pods/eviction"),
		on(write, "core", "replicationcontrollers replicationcontrollers/scale serviceaccounts services services/proxy persistentvolumeclaims configmaps secrets"),
		on("create", "core", "serviceaccounts/token"),
		on(write, "core events", "events"),
		on(write, "apps", "statefulsets statefulsets/scale daemonsets deployments deployments/scale deployments/rollback replicasets replicasets/scale"),
		on(write, "autoscaling", "horizontalpodautoscalers"),
		on(write, "batch", "jobs cronjobs"),
		on(write, "extensions", "daemonsets deployments deployments/scale deployments/rollback ingresses replicasets replicasets/scale replicationcontrollers/scale networkpolicies"),
		on(write, "policy", "poddisruptionbudgets"),
		on(write, "networking", "networkpolicies ingresses"),
		on(read+" "+write, "coordination", "leases"),
		on(write, "resource", "resourceclaims resourceclaimtemplates"),
	}
}

func viewRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		on(read, "core", "pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status endpoints persistentvolumeclaims persistentvolumeclaims/status configmaps"),
		on(read, "core", "limitranges resourcequotas bindings pods/status resourcequotas/status namespaces/status replicationcontrollers/status pods/log"),
		// Within a namespace this means that one namespace.
		on(read, "core", "namespaces"),
		on(read, "core events", "events"),
		on(read, "discovery", "endpointslices"),
		on(read, "apps", "controllerrevisions statefulsets statefulsets/status statefulsets/scale daemonsets daemonsets/status deployments deployments/status deployments/scale replicasets replicasets/status replicasets/scale"),
		on(read, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
		on(read, "batch", "jobs cronjobs cronjobs/status jobs/status"),
		on(read, "extensions", "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status replicasets replicasets/scale replicasets/status replicationcontrollers/scale networkpolicies"),
		on(read, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
		on(read, "networking", "networkpolicies ingresses ingresses/status"),
		on(read, "resource", "resourceclaims resourceclaims/status resourceclaimtemplates"),
	}
}
