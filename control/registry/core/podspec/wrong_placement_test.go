package podspec

import "testing"

func TestWrongPlacementAndSecurityAreRefused(t *testing.T) {
	t.Parallel()
	checkWrongManifests(t, []wrongManifest{
		{"a restart policy is one of three", "spec: {restartPolicy: Sometimes}", []string{
			`spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"`,
		}},
		{"a DNS policy is one of four", "spec: {dnsPolicy: Mine}", []string{
			`spec.dnsPolicy: Unsupported value: "Mine": supported values: "ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"`,
		}},
		{"without a DNS policy somebody must name servers", "spec: {dnsPolicy: None}", []string{
			"spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
		}},
		{"DNS servers are few and have addresses", "spec: {dnsConfig: {nameservers: [1.1.1.1, 8.8.8.8, 9.9.9.9, 010.0.0.1]}}", []string{
			`spec.dnsConfig.nameservers: Invalid value: ["1.1.1.1","8.8.8.8","9.9.9.9","010.0.0.1"]: must not have more than 3 nameservers`,
			`spec.dnsConfig.nameservers[3]: Invalid value: "010.0.0.1": must not have leading 0s`,
		}},
		{"search domains are domains", `spec: {dnsConfig: {searches: ["not a domain"], options: [{value: "1"}]}}`, []string{
			`spec.dnsConfig.searches[0]: Invalid value: "not a domain": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')`,
			"spec.dnsConfig.options[0]: Required value: must not be empty",
		}},
		{"an alias has an address and names", `spec: {hostAliases: [{ip: localhost, hostnames: ["a b"]}]}`, []string{
			`spec.hostAliases[0].ip: Invalid value: "localhost": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`,
			`spec.hostAliases[0].hostnames[0]: Invalid value: "a b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
		}},
		{"a node selector is made of labels", `spec: {nodeSelector: {"bad key": "bad value"}}`, []string{
			`spec.nodeSelector: Invalid value: "bad key": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`,
			`spec.nodeSelector: Invalid value: "bad value": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`,
		}},
		{"node affinity has terms and operators", "spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: []}, preferredDuringSchedulingIgnoredDuringExecution: [{weight: 0, preference: {matchExpressions: [{key: a, operator: Is, values: [b]}]}}]}}}", []string{
			"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
			"spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
			`spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].operator: Invalid value: "Is": not a valid selector operator`,
		}},
		{"node affinity's operators want values or none", "spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: In}, {key: b, operator: Exists, values: [x]}, {key: c, operator: Gt, values: [x, y]}], matchFields: [{key: spec.x, operator: In, values: [n]}]}]}}}}", []string{
			"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
			"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
			"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[2].values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'",
			`spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].key: Invalid value: "spec.x": not a valid field selector key`,
		}},
		{"pod affinity needs a topology", "spec: {affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {a: b}}}]}, podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 101, podAffinityTerm: {topologyKey: z, matchLabelKeys: [a]}}]}}}", []string{
			"spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty",
			`spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: "": name part must be non-empty`,
			`spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`,
			"spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100",
			"spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
		}},
		{"a toleration of all keys exists", "spec: {tolerations: [{value: x}]}", []string{
			"spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
		}},
		{"a toleration's operator, value and effect fit", "spec: {tolerations: [{key: a, operator: Exists, value: b}, {key: a, operator: Like}, {key: a, effect: Explode}, {key: a, tolerationSeconds: 5}]}", []string{
			"spec.tolerations[0].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'",
			`spec.tolerations[1].operator: Unsupported value: "Like": supported values: "Equal", "Exists"`,
			`spec.tolerations[2].effect: Unsupported value: "Explode": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"`,
			"spec.tolerations[3].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
		}},
		{"tolerations do not compare numbers yet", `spec: {tolerations: [{key: a, operator: Gt, value: "5"}]}`, []string{
			`spec.tolerations[0].operator: Unsupported value: "Gt": supported values: "Equal", "Exists", "Lt", "Gt"`,
		}},
		{"spreading has a skew, a topology and an action", "spec: {topologySpreadConstraints: [{maxSkew: 0, whenUnsatisfiable: Cry}]}", []string{
			"spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
			"spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty",
			`spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Cry": supported values: "DoNotSchedule", "ScheduleAnyway"`,
		}},
		{"domains are counted when scheduling depends on them", "spec: {topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway, minDomains: 2, labelSelector: {}}]}", []string{
			"spec.topologySpreadConstraints[0].minDomains: Invalid value: 2: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
		}},
		{"a pair of topology and action occurs once", "spec: {topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: DoNotSchedule}, {maxSkew: 2, topologyKey: z, whenUnsatisfiable: DoNotSchedule}]}", []string{
			`spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: "{z, DoNotSchedule}"`,
		}},
		{"a service account's name is a DNS subdomain", "spec: {serviceAccountName: My_Account}", []string{
			`spec.serviceAccountName: Invalid value: "My_Account": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
		}},
		{"a host name is a DNS label", `spec: {hostname: a.b, subdomain: "-"}`, []string{
			`spec.hostname: Invalid value: "a.b": must not contain dots`,
			`spec.subdomain: Invalid value: "-": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
		}},
		{"a deadline is in the future", "spec: {activeDeadlineSeconds: 0}", []string{
			"spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
		}},
		{"a priority class's name is a DNS subdomain", "spec: {priorityClassName: HIGH, runtimeClassName: Run_C, preemptionPolicy: Always}", []string{
			`spec.priorityClassName: Invalid value: "HIGH": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
			`spec.runtimeClassName: Invalid value: "Run_C": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
			`spec.preemptionPolicy: Unsupported value: "Always": supported values: "PreemptLowerPriority", "Never"`,
		}},
		{"a gated pod has no node", "spec: {nodeName: n1, schedulingGates: [{name: example.com/wait}, {name: example.com/wait}]}", []string{
			`spec.schedulingGates[1]: Duplicate value: "example.com/wait"`,
			"spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
		}},
		{"a readiness gate is a qualified name", `spec: {readinessGates: [{conditionType: "not valid"}]}`, []string{
			`spec.readinessGates[0].conditionType: Invalid value: "not valid": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`,
		}},
		{"user and group are 31-bit numbers", "spec: {securityContext: {runAsUser: -1, fsGroup: 4294967296, supplementalGroups: [-1]}, containers: [{name: c, image: nginx, securityContext: {runAsGroup: -5}}]}", []string{
			"spec.containers[0].securityContext.runAsGroup: Invalid value: -5: must be between 0 and 2147483647, inclusive",
			"spec.securityContext.fsGroup: Invalid value: 4294967296: must be between 0 and 2147483647, inclusive",
			"spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
			"spec.securityContext.supplementalGroups[0]: Invalid value: -1: must be between 0 and 2147483647, inclusive",
		}},
		{"a privileged container escalates", "spec: {containers: [{name: c, image: nginx, securityContext: {privileged: true, allowPrivilegeEscalation: false}}]}", []string{
			"spec.containers[0].securityContext: Invalid value: {\"privileged\":true,\"allowPrivilegeEscalation\":false}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
		}},
		{"a seccomp profile of the node has a path", "spec: {securityContext: {seccompProfile: {type: Localhost}}, containers: [{name: c, image: nginx, securityContext: {seccompProfile: {type: Mine}, appArmorProfile: {}}}]}", []string{
			`spec.containers[0].securityContext.seccompProfile.type: Unsupported value: "Mine": supported values: "Localhost", "RuntimeDefault", "Unconfined"`,
			"spec.containers[0].securityContext.appArmorProfile.type: Required value: type is required when appArmorProfile is set",
			"spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
		}},
		{"a sysctl is named once, and not of the node", `spec: {hostNetwork: true, securityContext: {sysctls: [{name: net.core.somaxconn, value: "1"}, {name: "Bad Name", value: "1"}, {name: net.core.somaxconn, value: "2"}]}}`, []string{
			`spec.securityContext.sysctls[0].name: Invalid value: "net.core.somaxconn": may not be specified when 'hostNetwork' is true`,
			`spec.securityContext.sysctls[1].name: Invalid value: "Bad Name": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`,
			`spec.securityContext.sysctls[2].name: Duplicate value: "net.core.somaxconn"`,
			`spec.securityContext.sysctls[2].name: Invalid value: "net.core.somaxconn": may not be specified when 'hostNetwork' is true`,
		}},
		{"a pod with its own users has its own namespaces", "spec: {hostUsers: false, hostNetwork: true, hostPID: true}", []string{
			"spec.hostNetwork: Forbidden: when `hostUsers` is false",
			"spec.HostPID: Forbidden: when `hostUsers` is false",
		}},
		{"masks are lifted for pods with their own users", "spec: {containers: [{name: c, image: nginx, securityContext: {procMount: Unmasked}}]}", []string{
			"spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
		}},
		{"processes are shared in the pod or with the node", "spec: {hostPID: true, shareProcessNamespace: true}", []string{
			"spec.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
		}},
		{"a Windows pod sets nothing of Linux's", "spec: {os: {name: windows}, securityContext: {runAsUser: 1}, containers: [{name: c, image: nginx, securityContext: {capabilities: {add: [X]}}}]}", []string{
			"spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod",
			"spec.containers[0].securityContext.capabilities: Forbidden: cannot be set for a windows pod",
		}},
		{"a Linux pod sets nothing of Windows'", `spec: {os: {name: linux}, securityContext: {windowsOptions: {runAsUserName: "a\\b\\c"}}}`, []string{
			`spec.securityContext.windowsOptions.runAsUserName: Invalid value: "a\\b\\c": runAsUserName cannot contain more than one backslash`,
			"spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
		}},
		{"an operating system is Linux or Windows", "spec: {os: {name: plan9}}", []string{
			`spec.os: Unsupported value: "plan9": supported values: "linux", "windows"`,
		}},
		{"a host name override is not the node's", "spec: {hostNetwork: true, hostnameOverride: A.b}", []string{
			"spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true",
			`spec.hostnameOverride: Invalid value: "A.b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
		}},
		{"overhead is of resources containers have", `spec: {overhead: {gpu: "1"}}`, []string{
			`spec.overhead.limits[gpu]: Invalid value: "gpu": must be a standard resource type or fully qualified`,
			`spec.overhead.limits[gpu]: Invalid value: "gpu": must be a standard resource for containers`,
		}},
		{"a resource claim says where it comes from", "spec: {resourceClaims: [{name: a}, {name: a, resourceClaimName: x, resourceClaimTemplateName: y}]}", []string{
			"spec.resourceClaims[0]: Invalid value: {\"name\":\"a\"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
			`spec.resourceClaims[1].name: Duplicate value: "a"`,
			"spec.resourceClaims[1]: Invalid value: {\"name\":\"a\",\"resourceClaimName\":\"x\",\"resourceClaimTemplateName\":\"true\"}: at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
		}},
	})
}
