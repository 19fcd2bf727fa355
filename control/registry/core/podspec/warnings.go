package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Warnings tells what is accepted in a valid pod spec and still looks like a mistake. The path is
// that of the template, nil for a pod.
func Warnings(path *field.Path, spec *corev1.PodSpec, meta *metav1.ObjectMeta) []string {
	w := warner{spec: spec, meta: meta, root: path, path: path.Child("spec")}
	w.placement()
	w.annotations()
	w.volumes()
	w.lists()
	containers(spec, w.path, w.container)
	w.ports()
	if grace := spec.TerminationGracePeriodSeconds; grace != nil && *grace < 0 {
		w.add(w.path.Child("terminationGracePeriodSeconds"), "must be >= 0; negative values are invalid and will be treated as 1")
	}
	w.nullSelectors()
	if spec.DNSConfig != nil {
		for i, server := range spec.DNSConfig.Nameservers {
			w.list = append(w.list, validation.GetWarningsForIP(w.path.Child("dnsConfig", "nameservers").Index(i), server)...)
		}
	}
	for i, alias := range spec.HostAliases {
		w.list = append(w.list, validation.GetWarningsForIP(w.path.Child("hostAliases").Index(i).Child("ip"), alias.IP)...)
	}
	return w.list
}

// StatusWarnings tells what is odd in a reported status.
func StatusWarnings(status *corev1.PodStatus) (list []string) {
	path := field.NewPath("status")
	for i, ip := range status.PodIPs {
		list = append(list, validation.GetWarningsForIP(path.Child("podIPs").Index(i).Child("ip"), ip.IP)...)
	}
	for i, ip := range status.HostIPs {
		list = append(list, validation.GetWarningsForIP(path.Child("hostIPs").Index(i).Child("ip"), ip.IP)...)
	}
	return list
}

type warner struct {
	list []string
	spec *corev1.PodSpec
	meta *metav1.ObjectMeta
	// root is the path of the object that has metadata and spec; path is that of the spec.
	root, path *field.Path
}

func (w *warner) add(path *field.Path, format string, args ...any) {
	w.list = append(w.list, path.String()+": "+fmt.Sprintf(format, args...))
}

func (w *warner) annotation(key, text string) {
	w.add(w.root.Child("metadata", "annotations").Key(key), "%s", text)
}

// DeprecatedNodeLabel says what took the place of a node label, or that nothing did.
func DeprecatedNodeLabel(key string) (string, bool) {
	switch key {
	case "beta.kubernetes.io/arch":
		return `deprecated since v1.14; use "kubernetes.io/arch" instead`, true
	case "beta.kubernetes.io/os":
		return `deprecated since v1.14; use "kubernetes.io/os" instead`, true
	case "failure-domain.beta.kubernetes.io/region":
		return `deprecated since v1.17; use "topology.kubernetes.io/region" instead`, true
	case "failure-domain.beta.kubernetes.io/zone":
		return `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`, true
	case "beta.kubernetes.io/instance-type":
		return `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`, true
	case "app.kubernetes.io/created-by":
		return "deprecated since v1.9", true
	case "scheduler.alpha.kubernetes.io/preferAvoidPods":
		return "deprecated since v1.22; use Taints and Tolerations instead", true
	case "node-role.kubernetes.io/master":
		return `use "node-role.kubernetes.io/control-plane" instead`, true
	default:
		return "", false
	}
}

func (w *warner) placement() {
	for _, key := range sortedKeys(w.spec.NodeSelector) {
		if text, deprecated := DeprecatedNodeLabel(key); deprecated {
			w.add(w.path.Child("nodeSelector").Key(key), "%s", text)
		}
	}
	if affinity := nodeAffinity(w.spec); affinity != nil {
		at := w.path.Child("affinity", "nodeAffinity")
		for i, term := range requiredTerms(affinity) {
			w.nodeTerm(&term, false, at.Child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms").Index(i))
		}
		for i, term := range affinity.PreferredDuringSchedulingIgnoredDuringExecution {
			w.nodeTerm(&term.Preference, true, at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("preference"))
		}
	}
	for i, constraint := range w.spec.TopologySpreadConstraints {
		at := w.path.Child("topologySpreadConstraints").Index(i)
		if text, deprecated := DeprecatedNodeLabel(constraint.TopologyKey); deprecated {
			w.add(at.Child("topologyKey"), "%s is %s", constraint.TopologyKey, text)
		}
		w.nullSelector(constraint.LabelSelector, at)
	}
}

func (w *warner) nodeTerm(term *corev1.NodeSelectorTerm, checkValues bool, path *field.Path) {
	for i, expression := range term.MatchExpressions {
		at := path.Child("matchExpressions").Index(i)
		if text, deprecated := DeprecatedNodeLabel(expression.Key); deprecated {
			w.add(at.Child("key"), "%s is %s", expression.Key, text)
		}
		if !checkValues {
			continue
		}
		for j, value := range expression.Values {
			for _, message := range validation.IsValidLabelValue(value) {
				w.add(at.Child("values").Index(j), "%s is invalid, %s", value, message)
			}
		}
	}
}

func (w *warner) nullSelector(selector *metav1.LabelSelector, path *field.Path) {
	if selector == nil {
		w.add(path.Child("labelSelector"), "a null labelSelector results in matching no pod")
	}
}

func (w *warner) nullSelectors() {
	affinity := w.spec.Affinity
	if affinity == nil {
		return
	}
	terms := func(name string, required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		at := w.path.Child("affinity", name)
		for i := range required {
			w.nullSelector(required[i].LabelSelector, at.Child("requiredDuringSchedulingIgnoredDuringExecution").Index(i))
		}
		for i := range preferred {
			w.nullSelector(preferred[i].PodAffinityTerm.LabelSelector,
				at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("podAffinityTerm"))
		}
	}
	if a := affinity.PodAffinity; a != nil {
		terms("podAffinity", a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a := affinity.PodAntiAffinity; a != nil {
		terms("podAntiAffinity", a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

func (w *warner) annotations() {
	for _, old := range []struct{ key, text string }{
		{"scheduler.alpha.kubernetes.io/critical-pod", `non-functional in v1.16+; use the "priorityClassName" field instead`},
		{"security.alpha.kubernetes.io/sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
		{"security.alpha.kubernetes.io/unsafe-sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
	} {
		if _, set := w.meta.Annotations[old.key]; set {
			w.annotation(old.key, old.text)
		}
	}
}

// lists warns of entries that shadow each other.
func (w *warner) lists() {
	addresses, secrets := sets.New[string](), sets.New[string]()
	for i, alias := range w.spec.HostAliases {
		if addresses.Has(alias.IP) {
			w.add(w.path.Child("hostAliases").Index(i).Child("ip"), "duplicate ip %q", alias.IP)
		}
		addresses.Insert(alias.IP)
	}
	at := w.path.Child("imagePullSecrets")
	for i, secret := range w.spec.ImagePullSecrets {
		if secrets.Has(secret.Name) {
			w.add(at.Index(i).Child("name"), "duplicate name %q", secret.Name)
		}
		secrets.Insert(secret.Name)
	}
	for i, secret := range w.spec.ImagePullSecrets {
		if secret.Name == "" {
			w.add(at.Index(i).Child("name"), "invalid empty name %q", secret.Name)
		}
	}
	w.wholeBytes(w.spec.Overhead, w.path.Child("overhead"), corev1.ResourceMemory, corev1.ResourceEphemeralStorage)
	if sc := w.spec.SecurityContext; sc == nil || sc.SeccompProfile == nil {
		w.oldSeccomp(corev1.SeccompPodAnnotationKey)
	}
}

func (w *warner) oldSeccomp(key string) {
	if _, set := w.meta.Annotations[key]; set {
		w.annotation(key, `non-functional in v1.27+; use the "seccompProfile" field instead`)
	}
}

func (w *warner) wholeBytes(list corev1.ResourceList, path *field.Path, names ...corev1.ResourceName) {
	for _, name := range names {
		if amount, set := list[name]; set && amount.MilliValue()%1000 != 0 {
			w.add(path.Key(string(name)), "fractional byte value %q is invalid, must be an integer", amount.String())
		}
	}
}

func (w *warner) container(c *corev1.Container, path *field.Path) {
	sc := c.SecurityContext
	if sc == nil || sc.SeccompProfile == nil {
		w.oldSeccomp(corev1.SeccompContainerAnnotationKeyPrefix + c.Name)
	}
	// A pod's AppArmor annotations are warned of where they become fields.
	if w.root != nil && (sc == nil || sc.AppArmorProfile == nil) {
		w.oldAppArmor(appArmorPrefix + c.Name)
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		w.wholeBytes(c.Resources.Limits, path.Child("resources", "limits"), name)
		w.wholeBytes(c.Resources.Requests, path.Child("resources", "requests"), name)
	}
	names := sets.New[string]()
	for i, variable := range c.Env {
		// A later definition that builds on the earlier one is fine.
		reference := "$(" + variable.Name + ")"
		extends := variable.ValueFrom == nil && variable.Value != reference && strings.Contains(variable.Value, reference)
		if names.Has(variable.Name) && !extends {
			w.add(path.Child("env").Index(i), "hides previous definition of %q, which may be dropped when using apply", variable.Name)
		}
		names.Insert(variable.Name)
	}
}

func (w *warner) oldAppArmor(key string) {
	annotation, set := w.meta.Annotations[key]
	if !set {
		return
	}
	var inherited *corev1.AppArmorProfile
	if w.spec.SecurityContext != nil {
		inherited = w.spec.SecurityContext.AppArmorProfile
	}
	if inherited == nil || !apiequality.Semantic.DeepEqual(inherited, appArmorFromAnnotation(annotation)) {
		w.annotation(key, `deprecated since v1.30; use the "appArmorProfile" field instead`)
	}
}

// ports warns of ports that two containers listen on or share a name for.
func (w *warner) ports() {
	type placed struct {
		corev1.ContainerPort
		path *field.Path
	}
	byPort, byName := map[string][]placed{}, map[string]*field.Path{}
	containers(w.spec, w.path, func(c *corev1.Container, path *field.Path) {
		for i, port := range c.Ports {
			at := path.Child("ports").Index(i)
			if port.HostIP != "" && port.HostPort == 0 {
				w.add(at, "hostIP set without hostPort: %+v", port)
			}
			key := fmt.Sprintf("%d/%s", port.ContainerPort, port.Protocol)
			for _, other := range byPort[key] {
				switch {
				case port.HostIP == other.HostIP && port.HostPort == other.HostPort:
					w.add(at, "duplicate port definition with %s", other.path)
				case port.HostPort == 0 || other.HostPort == 0:
					w.add(at, "overlapping port definition with %s", other.path)
				case port.HostPort == other.HostPort && (port.HostIP == "") != (other.HostIP == ""):
					w.add(at, "dangerously ambiguous port definition with %s", other.path)
				}
			}
			byPort[key] = append(byPort[key], placed{port, at})
		}
	})
	containers(w.spec, w.path, func(c *corev1.Container, path *field.Path) {
		for i, port := range c.Ports {
			at := path.Child("ports").Index(i)
			if port.Name == "" {
				continue
			}
			if other, taken := byName[port.Name]; taken {
				w.add(at, "duplicate port name %q with %s, services and probes that select ports by name will use %s", port.Name, other, other)
			} else {
				byName[port.Name] = at
			}
		}
	})
}
