package podspec

import (
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidatePod checks a pod that is to be created.
func ValidatePod(pod *corev1.Pod) field.ErrorList {
	v := newPodValidator(pod)
	v.pod(pod)
	path := field.NewPath("spec")
	if len(pod.Spec.EphemeralContainers) > 0 {
		v.forbidden(path.Child("ephemeralContainers"), "cannot be set on create")
	}
	if pod.Spec.NodeName != "" && len(pod.Spec.SchedulingGates) != 0 {
		v.forbidden(path.Child("nodeName"), "cannot be set until all schedulingGates have been cleared")
	}
	v.seccompAnnotationsMatch(pod.Annotations, path)
	v.appArmorAnnotationsMatch(pod.Annotations, path)
	return v.list
}

// ValidatePodTemplateSpec checks the pod template of a workload.
func ValidatePodTemplateSpec(template *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	v := validator{spec: &template.Spec}
	v.add(metavalidation.ValidateLabels(template.Labels, path.Child("labels"))...)
	v.add(apivalidation.ValidateAnnotations(template.Annotations, path.Child("annotations"))...)
	v.annotations(template.Annotations, path.Child("annotations"))
	at := path.Child("spec")
	v.podSpec(at)
	v.seccompAnnotationsMatch(template.Annotations, at)
	v.appArmorAnnotationsMatch(template.Annotations, at)
	if len(template.Spec.EphemeralContainers) > 0 {
		v.forbidden(at.Child("ephemeralContainers"), "ephemeral containers not allowed in pod template")
	}
	return v.list
}

// ValidatePodTemplate checks a PodTemplate object.
func ValidatePodTemplate(template *corev1.PodTemplate) field.ErrorList {
	errs := ValidateObjectMeta(&template.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
	return append(errs, ValidatePodTemplateSpec(&template.Template, field.NewPath("template"))...)
}

// ValidatePodTemplateUpdate checks a change of a PodTemplate object.
func ValidatePodTemplateUpdate(updated, old *corev1.PodTemplate) field.ErrorList {
	errs := ValidateObjectMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta)
	return append(errs, ValidatePodTemplateSpec(&updated.Template, field.NewPath("template"))...)
}

// validator checks one pod spec. Its fields are what a rule about one part of the spec needs to
// know of the rest.
type validator struct {
	findings
	spec *corev1.PodSpec
	// meta is nil when the spec is in a template: its pods have no name yet.
	meta *metav1.ObjectMeta
	// sources holds the volumes that are valid, by name.
	sources map[string]*corev1.VolumeSource
	// claims are the names of the pod's resource claims.
	claims sets.Set[string]
}

func newPodValidator(pod *corev1.Pod) *validator {
	return &validator{spec: &pod.Spec, meta: &pod.ObjectMeta}
}

// isPod tells a pod from a template, for which some rules are looser for historical reasons.
func (v *validator) isPod() bool { return v.meta != nil }

// hostUsers tells whether the pod shares the node's user namespace, which is the default.
func (v *validator) hostUsers() bool { return v.spec.HostUsers == nil || *v.spec.HostUsers }

// pod checks metadata and spec, on creation and on every update.
func (v *validator) pod(pod *corev1.Pod) {
	meta, spec := field.NewPath("metadata"), field.NewPath("spec")
	v.add(ValidateObjectMeta(&pod.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)...)
	v.annotations(pod.Annotations, meta.Child("annotations"))
	v.podSpec(spec)

	if pod.Spec.ServiceAccountName == "" {
		for i, volume := range pod.Spec.Volumes {
			if volume.Projected == nil {
				continue
			}
			at := spec.Child("volumes").Index(i).Child("projected", "sources")
			for j, source := range volume.Projected.Sources {
				if source.ServiceAccountToken != nil {
					v.forbidden(at.Index(j).Child("serviceAccountToken"), "must not be specified when serviceAccountName is not set")
				}
			}
		}
	}
	if grace := pod.Spec.TerminationGracePeriodSeconds; grace != nil {
		v.nonNegative(*grace, spec.Child("terminationGracePeriodSeconds"))
	}
	for i := range pod.Spec.Containers {
		v.imageNotPadded(pod.Spec.Containers[i].Image, spec.Child("containers").Index(i))
	}
	for i := range pod.Spec.InitContainers {
		v.imageNotPadded(pod.Spec.InitContainers[i].Image, spec.Child("initContainers").Index(i))
	}
}

func (v *validator) podSpec(path *field.Path) {
	spec := v.spec
	if spec.TerminationGracePeriodSeconds == nil {
		v.required(path.Child("terminationGracePeriodSeconds"), "")
	}
	v.volumes(path.Child("volumes"))
	v.podResourceClaims(path.Child("resourceClaims"))
	v.regularContainers(path.Child("containers"))
	v.initContainers(path.Child("initContainers"))
	v.ephemeralContainers(path.Child("ephemeralContainers"))
	v.podResources(path)
	v.hostNetworkPorts(path.Child("containers"))
	requiredOneOf(&v.findings, path.Child("restartPolicy"), spec.RestartPolicy,
		corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	requiredOneOf(&v.findings, path.Child("dnsPolicy"), spec.DNSPolicy,
		corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)
	v.add(metavalidation.ValidateLabels(spec.NodeSelector, path.Child("nodeSelector"))...)
	v.podSecurityContext(path.Child("securityContext"))
	if isTrue(spec.ShareProcessNamespace) && spec.HostPID {
		v.invalid(path.Child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled")
	}
	v.affinity(path.Child("affinity"))
	v.dnsConfig(path.Child("dnsConfig"))
	for i, gate := range spec.ReadinessGates {
		v.qualifiedName(string(gate.ConditionType), path.Child("readinessGates").Index(i).Child("conditionType"))
	}
	v.schedulingGates(path.Child("schedulingGates"))
	v.topologySpread(path.Child("topologySpreadConstraints"))
	v.windowsHostProcess(path)
	v.userNamespace(path)
	v.hostnameOverride(path.Child("hostnameOverride"))
	v.identity(path)
	v.tolerations(spec.Tolerations, path.Child("tolerations"))
	v.hostAliases(path.Child("hostAliases"))
	v.scheduling(path)
	v.operatingSystem(path)
	v.fileKeyVolumes(path)
}

// identity checks the names a pod is given or refers to.
func (v *validator) identity(path *field.Path) {
	spec := v.spec
	if spec.ServiceAccountName != "" {
		v.invalidEach(path.Child("serviceAccountName"), spec.ServiceAccountName, apivalidation.ValidateServiceAccountName(spec.ServiceAccountName, false))
	}
	if alias := spec.DeprecatedServiceAccount; alias != spec.ServiceAccountName {
		v.invalid(path.Child("deprecatedServiceAccount"), alias, fmt.Sprintf("must be the same as serviceAccountName: %q", spec.ServiceAccountName))
	}
	if spec.NodeName != "" {
		v.invalidEach(path.Child("nodeName"), spec.NodeName, apivalidation.NameIsDNSSubdomain(spec.NodeName, false))
	}
	if deadline := spec.ActiveDeadlineSeconds; deadline != nil && (*deadline < 1 || *deadline > math.MaxInt32) {
		v.invalid(path.Child("activeDeadlineSeconds"), *deadline, validation.InclusiveRangeError(1, math.MaxInt32))
	}
	if spec.Hostname != "" {
		v.dnsLabel(spec.Hostname, path.Child("hostname"))
	}
	if spec.Subdomain != "" {
		v.dnsLabel(spec.Subdomain, path.Child("subdomain"))
	}
}

// scheduling checks what decides the pod's rank and its cost for a node.
func (v *validator) scheduling(path *field.Path) {
	spec := v.spec
	if spec.PriorityClassName != "" {
		v.invalidEach(path.Child("priorityClassName"), spec.PriorityClassName, apivalidation.NameIsDNSSubdomain(spec.PriorityClassName, false))
	}
	if spec.RuntimeClassName != nil {
		v.invalidEach(path.Child("runtimeClassName"), *spec.RuntimeClassName, apivalidation.NameIsDNSSubdomain(*spec.RuntimeClassName, false))
	}
	if spec.PreemptionPolicy != nil {
		requiredOneOf(&v.findings, path.Child("preemptionPolicy"), *spec.PreemptionPolicy,
			corev1.PreemptLowerPriority, corev1.PreemptNever)
	}
	if spec.Overhead != nil {
		v.resources(&corev1.ResourceRequirements{Limits: spec.Overhead}, path.Child("overhead"))
	}
}

func (v *validator) schedulingGates(path *field.Path) {
	seen := sets.New[string]()
	for i, gate := range v.spec.SchedulingGates {
		v.qualifiedName(gate.Name, path.Index(i))
		if seen.Has(gate.Name) {
			v.duplicate(path.Index(i), gate.Name)
		}
		seen.Insert(gate.Name)
	}
}
