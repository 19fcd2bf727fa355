package podspec

import "testing"

func TestWrongProbesAndResourcesAreRefused(t *testing.T) {
	t.Parallel()
	checkWrongManifests(t, []wrongManifest{
		{"a probe has one handler", "spec: {containers: [{name: c, image: nginx, livenessProbe: {httpGet: {port: 80}, exec: {command: [x]}}, readinessProbe: {}}]}", []string{
			"spec.containers[0].livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type",
			"spec.containers[0].readinessProbe: Required value: must specify a handler type",
		}},
		{"a probe's port is a number or a name", `spec: {containers: [{name: c, image: nginx, readinessProbe: {tcpSocket: {port: 0}}, startupProbe: {httpGet: {port: "no!"}}}]}`, []string{
			"spec.containers[0].readinessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive",
			`spec.containers[0].startupProbe.httpGet.port: Invalid value: "no!": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)`,
		}},
		{"an HTTP probe speaks HTTP or HTTPS", `spec: {containers: [{name: c, image: nginx, readinessProbe: {httpGet: {port: 80, scheme: gopher, httpHeaders: [{name: "X Y"}]}}}]}`, []string{
			`spec.containers[0].readinessProbe.httpGet.scheme: Unsupported value: "gopher": supported values: "HTTP", "HTTPS"`,
			`spec.containers[0].readinessProbe.httpGet.httpHeaders: Invalid value: "X Y": a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')`,
		}},
		{"a command probe needs a command", "spec: {containers: [{name: c, image: nginx, livenessProbe: {exec: {}, initialDelaySeconds: -1}}]}", []string{
			"spec.containers[0].livenessProbe.exec.command: Required value",
			"spec.containers[0].livenessProbe.initialDelaySeconds: Invalid value: -1: must be greater than or equal to 0",
		}},
		{"liveness is decided by one success", "spec: {containers: [{name: c, image: nginx, livenessProbe: {exec: {command: [x]}, successThreshold: 2}}]}", []string{
			"spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
		}},
		{"readiness kills nobody", "spec: {containers: [{name: c, image: nginx, readinessProbe: {exec: {command: [x]}, terminationGracePeriodSeconds: 5}}]}", []string{
			"spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes",
		}},
		{"a stop signal needs an operating system", "spec: {containers: [{name: c, image: nginx, lifecycle: {stopSignal: SIGUSR1}}]}", []string{
			"spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`",
		}},
		{"a hook sleeps no longer than the grace period", "spec: {terminationGracePeriodSeconds: 5, containers: [{name: c, image: nginx, lifecycle: {preStop: {sleep: {seconds: 6}}}}]}", []string{
			"spec.containers[0].lifecycle.preStop.sleep: Invalid value: 6: must be non-negative and less than terminationGracePeriodSeconds (5)",
		}},
		{"an init container has no probes unless it is a sidecar", "spec: {initContainers: [{name: i, image: nginx, livenessProbe: {exec: {command: [x]}}, lifecycle: {preStop: {exec: {command: [x]}}}}]}", []string{
			"spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always",
			"spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
		}},
		{"restart rules need a restart policy", "spec: {containers: [{name: c, image: nginx, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [1]}}]}]}", []string{
			"spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
		}},
		{"a restart rule looks at exit codes", "spec: {containers: [{name: c, image: nginx, restartPolicy: Maybe, restartPolicyRules: [{action: Reboot}]}]}", []string{
			`spec.containers[0].restartPolicy: Unsupported value: "Maybe": supported values: "Always", "Never", "OnFailure"`,
			`spec.containers[0].restartPolicyRules[0].action: Unsupported value: "Reboot": supported values: "Restart", "RestartAllContainers"`,
			"spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified",
		}},
		{"a pod that never restarts is not resized by restarts", "spec: {restartPolicy: Never, containers: [{name: c, image: nginx, resizePolicy: [{resourceName: cpu, restartPolicy: RestartContainer}]}]}", []string{
			"spec.containers[0].resizePolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' when pod `restartPolicy` is 'Never'",
		}},
		{"a request is not more than its limit", `spec: {containers: [{name: c, image: nginx, resources: {requests: {cpu: "2"}, limits: {cpu: "1"}}}]}`, []string{
			`spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1`,
		}},
		{"an amount is not negative", `spec: {containers: [{name: c, image: nginx, resources: {requests: {memory: "-1"}}}]}`, []string{
			`spec.containers[0].resources.requests[memory]: Invalid value: "-1": must be greater than or equal to 0`,
		}},
		{"a resource without a domain is one Kubernetes knows", `spec: {containers: [{name: c, image: nginx, resources: {requests: {gpu: "1"}}}]}`, []string{
			`spec.containers[0].resources.requests[gpu]: Invalid value: "gpu": must be a standard resource type or fully qualified`,
			`spec.containers[0].resources.requests[gpu]: Invalid value: "gpu": must be a standard resource for containers`,
		}},
		{"an extended resource is limited to what is requested", `spec: {containers: [{name: c, image: nginx, resources: {requests: {example.com/gpu: "1"}}}]}`, []string{
			"spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
		}},
		{"an extended resource is counted", "spec: {containers: [{name: c, image: nginx, resources: {limits: {example.com/gpu: 500m}}}]}", []string{
			`spec.containers[0].resources.limits[example.com/gpu]: Invalid value: "500m": must be an integer`,
			`spec.containers[0].resources.requests[example.com/gpu]: Invalid value: "500m": must be an integer`,
		}},
		{"huge pages come in pages and with cpu or memory", "spec: {containers: [{name: c, image: nginx, resources: {limits: {hugepages-2Mi: 3Mi}}}]}", []string{
			`spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi`,
			`spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi`,
			"spec.containers[0].resources: Forbidden: HugePages require cpu or memory",
		}},
		{"a container uses claims of its pod", "spec: {containers: [{name: c, image: nginx, resources: {claims: [{name: gpu}]}}]}", []string{
			`spec.containers[0].resources.claims[0]: Not found: "gpu": must be one of the names in pod.spec.resourceClaims which is empty`,
		}},
		{"a pod's resources are enough for its containers", `spec: {resources: {requests: {cpu: "1"}, limits: {cpu: "1"}}, containers: [{name: c, image: nginx, resources: {requests: {cpu: "2"}, limits: {cpu: "2"}}}]}`, []string{
			`spec.resources.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container requests of 2`,
			`spec.resources.containers[0][cpu].limits: Invalid value: "2": must be less than or equal to pod limits of 1`,
		}},
		{"a pod's resources are cpu, memory and huge pages", "spec: {resources: {requests: {ephemeral-storage: 1Gi}}}", []string{
			`spec.resources.requests[ephemeral-storage]: Unsupported value: "ephemeral-storage": supported values: "cpu", "hugepages-", "memory"`,
		}},
	})
}
