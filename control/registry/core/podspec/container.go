package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (v *validator) regularContainers(path *field.Path) {
	if len(v.spec.Containers) == 0 {
		v.required(path, "")
		return
	}
	names := sets.New[string]()
	for i := range v.spec.Containers {
		c, at := &v.spec.Containers[i], path.Index(i)
		v.container(c, at)
		if names.Has(c.Name) {
			v.duplicate(at.Child("name"), c.Name)
		}
		names.Insert(c.Name)
		v.lifecycleAndProbes(c, at)
		v.containerRestart(c, at)
	}
	v.uniqueHostPorts(v.spec.Containers, path)
}

func (v *validator) initContainers(path *field.Path) {
	names := sets.New[string]()
	for i := range v.spec.Containers {
		names.Insert(v.spec.Containers[i].Name)
	}
	for i := range v.spec.InitContainers {
		c, at := &v.spec.InitContainers[i], path.Index(i)
		v.container(c, at)
		v.containerRestart(c, at)
		if names.Has(c.Name) {
			v.duplicate(at.Child("name"), c.Name)
		} else if c.Name != "" {
			names.Insert(c.Name)
		}
		// Init containers run one after the other: their ports meet no others.
		v.uniqueHostPorts(v.spec.InitContainers[i:i+1], path)
		if isSidecar(c) {
			v.lifecycleAndProbes(c, at)
			continue
		}
		v.noLifecycleOrProbes(c, at)
		for j, policy := range c.ResizePolicy {
			if policy.RestartPolicy == corev1.RestartContainer {
				v.invalid(at.Child("resizePolicy").Index(j).Child("restartPolicy"), policy.RestartPolicy,
					"must not be set to 'RestartContainer' for non-sidecar initContainers")
			}
		}
	}
}

// container applies the rules which all kinds of containers share.
func (v *validator) container(c *corev1.Container, path *field.Path) {
	if c.Name == "" {
		v.required(path.Child("name"), "")
	} else {
		v.dnsLabel(c.Name, path.Child("name"))
	}
	// A template may hold an image of blanks: some tools put their own later.
	if c.Image == "" {
		v.required(path.Child("image"), "")
	}
	requiredOneOf(&v.findings, path.Child("terminationMessagePolicy"), c.TerminationMessagePolicy,
		corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)
	v.ports(c.Ports, path.Child("ports"))
	v.env(c.Env, path.Child("env"))
	v.envFrom(c.EnvFrom, path.Child("envFrom"))
	v.volumeMounts(c, path.Child("volumeMounts"))
	v.volumeDevices(c, path.Child("volumeDevices"))
	v.pullPolicy(c.ImagePullPolicy, path.Child("imagePullPolicy"))
	v.resources(&c.Resources, path.Child("resources"))
	v.resizePolicy(c.ResizePolicy, path.Child("resizePolicy"))
	v.securityContext(c.SecurityContext, path.Child("securityContext"))
}

// imageNotPadded is a rule for pods only.
func (v *validator) imageNotPadded(image string, path *field.Path) {
	if strings.TrimSpace(image) != image {
		v.invalid(path.Child("image"), image, "must not have leading or trailing whitespace")
	}
}

func (v *validator) pullPolicy(policy corev1.PullPolicy, path *field.Path) {
	requiredOneOf(&v.findings, path, policy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
}

func (v *validator) ports(ports []corev1.ContainerPort, path *field.Path) {
	names := sets.New[string]()
	for i, port := range ports {
		at := path.Index(i)
		if port.Name != "" {
			if messages := validation.IsValidPortName(port.Name); len(messages) > 0 {
				v.invalidEach(at.Child("name"), port.Name, messages)
			} else if names.Has(port.Name) {
				v.duplicate(at.Child("name"), port.Name)
			} else {
				names.Insert(port.Name)
			}
		}
		if port.ContainerPort == 0 {
			v.required(at.Child("containerPort"), "")
		} else {
			v.portNumber(port.ContainerPort, at.Child("containerPort"))
		}
		if port.HostPort != 0 {
			v.portNumber(port.HostPort, at.Child("hostPort"))
		}
		requiredOneOf(&v.findings, at.Child("protocol"), port.Protocol,
			corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
	}
}

// uniqueHostPorts keeps containers that run at the same time from asking for one port of the node.
func (v *validator) uniqueHostPorts(list []corev1.Container, path *field.Path) {
	taken := sets.New[string]()
	for i := range list {
		for j, port := range list[i].Ports {
			if port.HostPort == 0 {
				continue
			}
			key := fmt.Sprintf("%s/%s/%d", port.Protocol, port.HostIP, port.HostPort)
			if taken.Has(key) {
				v.duplicate(path.Index(i).Child("ports").Index(j).Child("hostPort"), key)
			}
			taken.Insert(key)
		}
	}
}

// hostNetworkPorts: without a network of its own a pod cannot map ports. Templates may leave the
// host port open, it is set when the pod is made.
func (v *validator) hostNetworkPorts(path *field.Path) {
	if !v.spec.HostNetwork {
		return
	}
	for i := range v.spec.Containers {
		for j, port := range v.spec.Containers[i].Ports {
			if (v.isPod() || port.HostPort != 0) && port.HostPort != port.ContainerPort {
				v.invalid(path.Index(i).Child("ports").Index(j).Child("hostPort"), port.HostPort,
					"must match `containerPort` when `hostNetwork` is true")
			}
		}
	}
}
