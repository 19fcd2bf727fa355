package podspec

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// wrongManifest is a pod that is refused: the smallest pod with a change, and what kubectl prints.
type wrongManifest struct {
	name, change string
	want         []string
}

func checkWrongManifests(t *testing.T, cases []wrongManifest) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pod := manifest(t, c.change)
			PrepareForCreate(pod, metav1.Time{})
			if diff := cmp.Diff(c.want, messages(ValidatePod(pod))); diff != "" {
				t.Errorf("messages for %s (-want +got):\n%s", c.change, diff)
			}
		})
	}
}

func TestWrongPodsAndContainersAreRefused(t *testing.T) {
	t.Parallel()
	checkWrongManifests(t, []wrongManifest{
		{"a pod needs a name", "metadata: {name: null}", []string{
			"metadata.name: Required value: name or generateName is required",
		}},
		{"a pod's name is a DNS subdomain", "metadata: {name: Web_1}", []string{
			`metadata.name: Invalid value: "Web_1": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
		}},
		{"a finalizer without a domain must be a standard one", "metadata: {finalizers: [mine]}", []string{
			`metadata.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified`,
		}},
		{"a label value has at most 63 characters of a certain kind", `metadata: {labels: {app: "not valid!"}}`, []string{
			`metadata.labels: Invalid value: "not valid!": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`,
		}},
		{"a mirror pod names its node", `metadata: {annotations: {kubernetes.io/config.mirror: "x"}}`, []string{
			`metadata.annotations[kubernetes.io/config.mirror]: Invalid value: "x": must set spec.nodeName if mirror pod annotation is set`,
		}},
		{"the cost of a deletion is an integer", `metadata: {annotations: {controller.kubernetes.io/pod-deletion-cost: "+5"}}`, []string{
			`metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "+5": must be a 32bit integer`,
		}},
		{"a pod needs a container", "spec: {containers: []}", []string{
			"spec.containers: Required value",
		}},
		{"a container needs a name and an image", "spec: {containers: [{}]}", []string{
			"spec.containers[0].name: Required value",
			"spec.containers[0].image: Required value",
		}},
		{"a container's name is a DNS label", "spec: {containers: [{name: Web.1, image: nginx}]}", []string{
			`spec.containers[0].name: Invalid value: "Web.1": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
		}},
		{"containers have different names", "spec: {containers: [{name: c, image: nginx}, {name: c, image: nginx}]}", []string{
			`spec.containers[1].name: Duplicate value: "c"`,
		}},
		{"init containers and containers have different names", "spec: {initContainers: [{name: c, image: nginx}]}", []string{
			`spec.initContainers[0].name: Duplicate value: "c"`,
		}},
		{"an image has no blanks around it", `spec: {containers: [{name: c, image: " nginx"}]}`, []string{
			`spec.containers[0].image: Invalid value: " nginx": must not have leading or trailing whitespace`,
		}},
		{"an image is pulled always, once or never", "spec: {containers: [{name: c, image: nginx, imagePullPolicy: Sometimes}]}", []string{
			`spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"`,
		}},
		{"a termination message comes from a file or from the log", "spec: {containers: [{name: c, image: nginx, terminationMessagePolicy: Shout}]}", []string{
			`spec.containers[0].terminationMessagePolicy: Unsupported value: "Shout": supported values: "File", "FallbackToLogsOnError"`,
		}},
		{"ephemeral containers come later", "spec: {ephemeralContainers: [{name: e, image: busybox}]}", []string{
			"spec.ephemeralContainers: Forbidden: cannot be set on create",
		}},
		{"a port needs a number", "spec: {containers: [{name: c, image: nginx, ports: [{name: http}]}]}", []string{
			"spec.containers[0].ports[0].containerPort: Required value",
		}},
		{"a port is at most 65535", "spec: {containers: [{name: c, image: nginx, ports: [{containerPort: 70000, hostPort: -1}]}]}", []string{
			"spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
			"spec.containers[0].ports[0].hostPort: Invalid value: -1: must be between 1 and 65535, inclusive",
		}},
		{"a port's name is short and has a letter", `spec: {containers: [{name: c, image: nginx, ports: [{name: "8080", containerPort: 80}, {name: much-too-long-name, containerPort: 81}]}]}`, []string{
			`spec.containers[0].ports[0].name: Invalid value: "8080": must contain at least one letter (a-z)`,
			`spec.containers[0].ports[1].name: Invalid value: "much-too-long-name": must be no more than 15 characters`,
		}},
		{"ports have different names", "spec: {containers: [{name: c, image: nginx, ports: [{name: a, containerPort: 80}, {name: a, containerPort: 81}]}]}", []string{
			`spec.containers[0].ports[1].name: Duplicate value: "a"`,
		}},
		{"a protocol is TCP, UDP or SCTP", "spec: {containers: [{name: c, image: nginx, ports: [{containerPort: 80, protocol: tcp}]}]}", []string{
			`spec.containers[0].ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", "TCP", "UDP"`,
		}},
		{"two containers cannot take one port of the node", "spec: {containers: [{name: c, image: nginx, ports: [{containerPort: 80, hostPort: 80}]}, {name: d, image: nginx, ports: [{containerPort: 81, hostPort: 80}]}]}", []string{
			`spec.containers[1].ports[0].hostPort: Duplicate value: "TCP//80"`,
		}},
		{"a host-network pod cannot map ports", "spec: {hostNetwork: true, containers: [{name: c, image: nginx, ports: [{containerPort: 80, hostPort: 8080}]}]}", []string{
			"spec.containers[0].ports[0].hostPort: Invalid value: 8080: must match `containerPort` when `hostNetwork` is true",
		}},
		{"a variable needs a name", "spec: {containers: [{name: c, image: nginx, env: [{value: x}]}]}", []string{
			"spec.containers[0].env[0].name: Required value",
		}},
		{"a variable's name has no equals sign", `spec: {containers: [{name: c, image: nginx, env: [{name: "A=B"}]}]}`, []string{
			`spec.containers[0].env[0].name: Invalid value: "A=B": a valid environment variable name must consist only of printable ASCII characters other than '='`,
		}},
		{"a variable has a value or a source", "spec: {containers: [{name: c, image: nginx, env: [{name: A, value: x, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}]}", []string{
			"spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
		}},
		{"a variable has one source", "spec: {containers: [{name: c, image: nginx, env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}, secretKeyRef: {name: s, key: k}}}]}]}", []string{
			`spec.containers[0].env[0].valueFrom: Invalid value: "": may not have more than one field specified at a time`,
		}},
		{"a variable's source says which", "spec: {containers: [{name: c, image: nginx, env: [{name: A, valueFrom: {}}]}]}", []string{
			"spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
		}},
		{"a variable cannot hold all labels", "spec: {containers: [{name: c, image: nginx, env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.labels}}}]}]}", []string{
			`spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "metadata.labels": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"`,
		}},
		{"a variable cannot hold a field that does not exist", "spec: {containers: [{name: c, image: nginx, env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.color}}}]}]}", []string{
			`spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.color": error converting fieldPath: field label not supported: spec.color`,
		}},
		{"a variable holds cpu in thousandths or whole", `spec: {containers: [{name: c, image: nginx, env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: "10"}}}]}]}`, []string{
			`spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: "limits.cpu": only divisor's values 1m and 1 are supported with the cpu resource`,
		}},
		{"a variable holds one of a container's resources", "spec: {containers: [{name: c, image: nginx, env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.gpu}}}]}]}", []string{
			`spec.containers[0].env[0].valueFrom.resourceFieldRef.resource: Unsupported value: "limits.gpu": supported values: "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"`,
		}},
		{"a key reference names the object and the key", "spec: {containers: [{name: c, image: nginx, env: [{name: A, valueFrom: {configMapKeyRef: {}}}]}]}", []string{
			`spec.containers[0].env[0].valueFrom.configMapKeyRef.name: Invalid value: "": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
			"spec.containers[0].env[0].valueFrom.configMapKeyRef.key: Required value",
		}},
		{"variables come from one ConfigMap or one Secret each", "spec: {containers: [{name: c, image: nginx, envFrom: [{}, {configMapRef: {name: a}, secretRef: {name: b}}, {secretRef: {}}]}]}", []string{
			"spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
			`spec.containers[0].envFrom: Invalid value: "": may not have more than one field specified at a time`,
			"spec.containers[0].envFrom[2].secretRef.name: Required value",
		}},
		{"a file with variables lies in an emptyDir", "spec: {containers: [{name: c, image: nginx, env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: ../x, key: K}}}]}], volumes: [{name: v, hostPath: {path: /x}}]}", []string{
			`spec.containers[0].env[0].valueFrom.fileKeyRef.path: Invalid value: "../x": must not contain '..'`,
			`spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Invalid value: "v": referenced volume must be of type emptyDir`,
		}},
	})
}
