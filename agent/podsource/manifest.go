package podsource

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

// load reads one manifest. A changed one is another pod: its UID is made from
// what it says, unless the manifest has one.
func load(path, node string) (*v1.Pod, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read static pod: %w", err)
	}
	pod := &v1.Pod{}
	if err := yaml.UnmarshalStrict(data, pod); err != nil {
		return nil, fmt.Errorf("static pod %s: %w", path, err)
	}
	if pod.Kind != "Pod" || pod.APIVersion != "v1" {
		return nil, fmt.Errorf("static pod %s: apiVersion %q, kind %q: a v1 Pod is needed", path, pod.APIVersion, pod.Kind)
	}
	if pod.UID == "" {
		said, err := json.Marshal(pod)
		if err != nil {
			return nil, fmt.Errorf("static pod %s: %w", path, err)
		}
		sum := md5.New()
		fmt.Fprintf(sum, "host:%sfile:%s", node, path)
		sum.Write(said)
		pod.UID = types.UID(hex.EncodeToString(sum.Sum(nil)))
	}
	if pod.Namespace == "" {
		pod.Namespace = v1.NamespaceDefault
	}
	if pod.Name == "" {
		return nil, fmt.Errorf("static pod %s: metadata.name is required", path)
	}
	pod.Name += "-" + strings.ToLower(node)
	if err := check(pod); err != nil {
		return nil, fmt.Errorf("static pod %s: %w", path, err)
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[SourceAnnotation] = "file"
	pod.Annotations[HashAnnotation] = string(pod.UID)
	pod.Annotations[SeenAnnotation] = time.Now().Format(time.RFC3339Nano)
	pod.Status = v1.PodStatus{Phase: v1.PodPending}
	setDefaults(pod, node)
	return pod, nil
}

// check refuses what the API server would have refused, as far as it would keep
// the agent from running the pod, and what a pod that the API does not give
// cannot have.
func check(pod *v1.Pod) error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, message := range validation.IsDNS1123Subdomain(pod.Name) {
		fail("metadata.name %q: %s", pod.Name, message)
	}
	for _, message := range validation.IsDNS1123Label(pod.Namespace) {
		fail("metadata.namespace %q: %s", pod.Namespace, message)
	}
	if len(pod.Spec.Containers) == 0 {
		fail("spec.containers: at least one is required")
	}
	if len(pod.Spec.EphemeralContainers) > 0 {
		fail("spec.ephemeralContainers: cannot be set in a manifest")
	}
	volumes, names := map[string]bool{}, map[string]bool{}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if volumes[v.Name] || len(validation.IsDNS1123Label(v.Name)) > 0 {
			fail("spec.volumes[%d].name %q: must be a DNS label that no other volume has", i, v.Name)
		}
		volumes[v.Name] = true
	}
	for field, containers := range map[string][]v1.Container{"initContainers": pod.Spec.InitContainers, "containers": pod.Spec.Containers} {
		for i := range containers {
			c := &containers[i]
			if names[c.Name] || len(validation.IsDNS1123Label(c.Name)) > 0 {
				fail("spec.%s[%d].name %q: must be a DNS label that no other container has", field, i, c.Name)
			}
			names[c.Name] = true
			if c.Image == "" {
				fail("spec.%s[%d].image: is required", field, i)
			}
			for _, m := range c.VolumeMounts {
				if !volumes[m.Name] {
					fail("spec.%s[%d].volumeMounts: there is no volume %q", field, i, m.Name)
				}
			}
		}
	}
	if resource := apiReference(pod); resource != "" {
		fail("static pods may not reference %s", resource)
	}
	return errors.Join(errs...)
}

// apiReference names the kind of API objects the pod refers to, or nothing: the
// agent must be able to run it without an API.
func apiReference(pod *v1.Pod) string {
	spec := &pod.Spec
	switch {
	case spec.ServiceAccountName != "" || spec.DeprecatedServiceAccount != "":
		return "serviceaccounts"
	case len(spec.ImagePullSecrets) > 0:
		return "secrets"
	case len(spec.ResourceClaims) > 0:
		return "resourceclaims"
	}
	for _, containers := range [][]v1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			for _, e := range containers[i].EnvFrom {
				switch {
				case e.ConfigMapRef != nil:
					return "configmaps"
				case e.SecretRef != nil:
					return "secrets"
				}
			}
			for _, e := range containers[i].Env {
				switch {
				case e.ValueFrom == nil:
				case e.ValueFrom.ConfigMapKeyRef != nil:
					return "configmaps"
				case e.ValueFrom.SecretKeyRef != nil:
					return "secrets"
				}
			}
		}
	}
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		switch {
		case v.ConfigMap != nil:
			return "configmaps"
		case v.Secret != nil:
			return "secrets"
		case v.PersistentVolumeClaim != nil, v.Ephemeral != nil:
			return "persistentvolumeclaims"
		case v.CSI != nil && v.CSI.NodePublishSecretRef != nil:
			return "csidrivers (via CSI volumes)"
		}
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			switch {
			case s.ConfigMap != nil:
				return "configmaps"
			case s.Secret != nil:
				return "secrets"
			case s.ServiceAccountToken != nil:
				return "serviceaccounts"
			case s.ClusterTrustBundle != nil:
				return "clustertrustbundles"
			case s.PodCertificate != nil:
				return "podcertificates"
			}
		}
	}
	return ""
}

// setDefaults fills in what the API server would have for the fields the agent
// relies on.
func setDefaults(pod *v1.Pod, node string) {
	spec := &pod.Spec
	spec.NodeName = node
	setDefault(&spec.RestartPolicy, v1.RestartPolicyAlways)
	setDefault(&spec.DNSPolicy, v1.DNSClusterFirst)
	setDefault(&spec.SchedulerName, v1.DefaultSchedulerName)
	if spec.TerminationGracePeriodSeconds == nil {
		spec.TerminationGracePeriodSeconds = ptr.To[int64](v1.DefaultTerminationGracePeriodSeconds)
	}
	if spec.EnableServiceLinks == nil {
		spec.EnableServiceLinks = ptr.To(v1.DefaultEnableServiceLinks)
	}
	if spec.SecurityContext == nil {
		spec.SecurityContext = &v1.PodSecurityContext{}
	}
	// A static pod is not driven out by taints.
	always := v1.Toleration{Operator: v1.TolerationOpExists, Effect: v1.TaintEffectNoExecute}
	spec.Tolerations = append(spec.Tolerations, always)
	for i := range spec.Volumes {
		defaultVolume(&spec.Volumes[i])
	}
	for _, containers := range [][]v1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			defaultContainer(&containers[i], spec.HostNetwork)
		}
	}
}

func setDefault[T ~string](field *T, value T) {
	if *field == "" {
		*field = value
	}
}

func defaultVolume(v *v1.Volume) {
	fieldVersion := func(items []v1.DownwardAPIVolumeFile) {
		for i := range items {
			if items[i].FieldRef != nil {
				setDefault(&items[i].FieldRef.APIVersion, "v1")
			}
		}
	}
	switch {
	case v.VolumeSource == (v1.VolumeSource{}):
		v.EmptyDir = &v1.EmptyDirVolumeSource{}
	case v.HostPath != nil && v.HostPath.Type == nil:
		v.HostPath.Type = ptr.To(v1.HostPathUnset)
	case v.DownwardAPI != nil:
		if v.DownwardAPI.DefaultMode == nil {
			v.DownwardAPI.DefaultMode = ptr.To(v1.DownwardAPIVolumeSourceDefaultMode)
		}
		fieldVersion(v.DownwardAPI.Items)
	case v.Projected != nil:
		if v.Projected.DefaultMode == nil {
			v.Projected.DefaultMode = ptr.To(v1.ProjectedVolumeSourceDefaultMode)
		}
		for _, s := range v.Projected.Sources {
			if s.DownwardAPI != nil {
				fieldVersion(s.DownwardAPI.Items)
			}
		}
	}
}

func defaultContainer(c *v1.Container, hostNetwork bool) {
	setDefault(&c.TerminationMessagePath, v1.TerminationMessagePathDefault)
	setDefault(&c.TerminationMessagePolicy, v1.TerminationMessageReadFile)
	if c.ImagePullPolicy == "" {
		c.ImagePullPolicy = v1.PullIfNotPresent
		name := c.Image[strings.LastIndex(c.Image, "/")+1:]
		if strings.HasSuffix(name, ":latest") || !strings.ContainsAny(name, ":@") {
			c.ImagePullPolicy = v1.PullAlways
		}
	}
	for i := range c.Ports {
		setDefault(&c.Ports[i].Protocol, v1.ProtocolTCP)
		if hostNetwork && c.Ports[i].HostPort == 0 {
			c.Ports[i].HostPort = c.Ports[i].ContainerPort
		}
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil && from.FieldRef != nil {
			setDefault(&from.FieldRef.APIVersion, "v1")
		}
	}
	for _, probe := range []*v1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if probe != nil {
			defaultProbe(probe)
		}
	}
	if c.Lifecycle != nil {
		for _, hook := range []*v1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if hook != nil && hook.HTTPGet != nil {
				defaultHTTP(hook.HTTPGet)
			}
		}
	}
	for name, limit := range c.Resources.Limits {
		if _, ok := c.Resources.Requests[name]; !ok {
			if c.Resources.Requests == nil {
				c.Resources.Requests = v1.ResourceList{}
			}
			c.Resources.Requests[name] = limit
		}
	}
}

func defaultProbe(p *v1.Probe) {
	p.TimeoutSeconds, p.SuccessThreshold = max(p.TimeoutSeconds, 1), max(p.SuccessThreshold, 1)
	if p.PeriodSeconds == 0 {
		p.PeriodSeconds = 10
	}
	if p.FailureThreshold == 0 {
		p.FailureThreshold = 3
	}
	if p.HTTPGet != nil {
		defaultHTTP(p.HTTPGet)
	}
	if p.GRPC != nil && p.GRPC.Service == nil {
		p.GRPC.Service = ptr.To("")
	}
}

func defaultHTTP(get *v1.HTTPGetAction) {
	setDefault(&get.Path, "/")
	setDefault(&get.Scheme, v1.URISchemeHTTP)
}
