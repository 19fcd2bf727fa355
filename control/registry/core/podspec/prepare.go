package podspec

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// PrepareForCreate makes a new pod what the cluster starts from: pending, in its first generation,
// without what users may not set. It returns warnings for the user.
func PrepareForCreate(pod *corev1.Pod, now metav1.Time) (warnings []string) {
	pod.Generation = 1
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending}
	DropUnsupportedInPod(pod)
	if len(pod.Spec.SchedulingGates) > 0 {
		pod.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
			LastTransitionTime: now,
			Message:            "Scheduling is blocked due to non-empty scheduling gates",
		}}
	}
	mergeLabelKeys(pod)
	warnings = appArmorFields(pod)
	DefaultPodResources(pod)
	pod.Status.QOSClass = QOSClass(pod)
	return warnings
}

// The functions below take what they keep from the old pod without copying it: the old pod is
// shared with other readers. They change only what the request brought.

// PrepareForUpdate keeps the status, which has its own subresource, and counts generations.
func PrepareForUpdate(updated, old *corev1.Pod) {
	DropUnsupportedInPod(updated)
	updated.Status = old.Status
	keepPodResources(updated, old)
	bumpGeneration(updated, old)
}

// PrepareForStatusUpdate keeps all but the status and a few labels of the metadata, and in the
// status what reporters that do not know a field leave out.
func PrepareForStatusUpdate(updated, old *corev1.Pod) {
	DropUnsupportedInStatus(&updated.Status)
	dropInitContainerAnnotations(updated.Annotations)
	updated.Spec = old.Spec
	updated.DeletionTimestamp = nil
	updated.OwnerReferences = old.OwnerReferences
	status, was := &updated.Status, &old.Status
	setIfZero(&status.QOSClass, was.QOSClass)
	setIfZero(&status.ObservedGeneration, was.ObservedGeneration)
	if status.ResourceClaimStatuses == nil {
		status.ResourceClaimStatuses = was.ResourceClaimStatuses
	}
	if status.ExtendedResourceClaimStatus == nil {
		status.ExtendedResourceClaimStatus = was.ExtendedResourceClaimStatus
	}
	keepObservedGenerations(status.Conditions, was.Conditions)
}

// keepObservedGenerations gives conditions without a generation that of the old condition of the
// same type; of several with one type, the n-th gets that of the n-th.
func keepObservedGenerations(updated, old []corev1.PodCondition) {
	was := map[corev1.PodConditionType][]int64{}
	for _, condition := range old {
		was[condition.Type] = append(was[condition.Type], condition.ObservedGeneration)
	}
	for i := range updated {
		generations := was[updated[i].Type]
		if len(generations) == 0 {
			continue
		}
		was[updated[i].Type] = generations[1:]
		setIfZero(&updated[i].ObservedGeneration, generations[0])
	}
}

// PrepareForEphemeralContainersUpdate keeps all but the ephemeral containers.
func PrepareForEphemeralContainersUpdate(updated, old *corev1.Pod) {
	DropUnsupported(&updated.Spec)
	added := updated.Spec.EphemeralContainers
	updated.Spec = old.Spec
	updated.Spec.EphemeralContainers = added
	updated.Status = old.Status
	metav1.ResetObjectMetaForStatus(&updated.ObjectMeta, &old.ObjectMeta)
	bumpGeneration(updated, old)
}

// PrepareForResize keeps all but the resources and resize policies of containers and the resources
// of the pod. Where containers do not correspond, the change is left for validation to refuse.
func PrepareForResize(updated, old *corev1.Pod) {
	DropUnsupported(&updated.Spec)
	if len(updated.Spec.Containers) == len(old.Spec.Containers) && len(updated.Spec.InitContainers) == len(old.Spec.InitContainers) {
		spec := old.Spec
		spec.Resources = updated.Spec.Resources
		spec.Containers = onlyResized(updated.Spec.Containers, old.Spec.Containers)
		spec.InitContainers = onlyResized(updated.Spec.InitContainers, old.Spec.InitContainers)
		updated.Spec = spec
		updated.Status = old.Status
		metav1.ResetObjectMetaForStatus(&updated.ObjectMeta, &old.ObjectMeta)
	}
	keepPodResources(updated, old)
	DefaultPodResources(updated)
	bumpGeneration(updated, old)
}

func onlyResized(updated, old []corev1.Container) []corev1.Container {
	if len(updated) == 0 {
		return updated
	}
	merged := append([]corev1.Container(nil), old...)
	for i := range updated {
		if updated[i].Name != old[i].Name {
			return updated
		}
		merged[i].Resources = updated[i].Resources
		merged[i].ResizePolicy = updated[i].ResizePolicy
	}
	return merged
}

// keepPodResources guards pod-level resources against clients that do not know them.
func keepPodResources(updated, old *corev1.Pod) {
	if updated.Spec.Resources == nil && old.Spec.Resources != nil {
		updated.Spec.Resources = old.Spec.Resources.DeepCopy()
	}
}

func bumpGeneration(updated, old *corev1.Pod) {
	if !apiequality.Semantic.DeepEqual(updated.Spec, old.Spec) {
		updated.Generation++
	}
}

// mergeLabelKeys turns matchLabelKeys and mismatchLabelKeys into expressions with the values the
// pod's labels have now, which is what the scheduler reads.
func mergeLabelKeys(pod *corev1.Pod) {
	merge := func(selector *metav1.LabelSelector, keys []string, operator metav1.LabelSelectorOperator) {
		for _, key := range keys {
			if value, labelled := pod.Labels[key]; labelled && selector != nil {
				selector.MatchExpressions = append(selector.MatchExpressions,
					metav1.LabelSelectorRequirement{Key: key, Operator: operator, Values: []string{value}})
			}
		}
	}
	for _, term := range affinityTerms(pod.Spec.Affinity) {
		merge(term.LabelSelector, term.MatchLabelKeys, metav1.LabelSelectorOpIn)
		merge(term.LabelSelector, term.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
	}
	for i := range pod.Spec.TopologySpreadConstraints {
		c := &pod.Spec.TopologySpreadConstraints[i]
		merge(c.LabelSelector, c.MatchLabelKeys, metav1.LabelSelectorOpIn)
	}
}

func affinityTerms(affinity *corev1.Affinity) (terms []*corev1.PodAffinityTerm) {
	if affinity == nil {
		return nil
	}
	collect := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i := range preferred {
			terms = append(terms, &preferred[i].PodAffinityTerm)
		}
		for i := range required {
			terms = append(terms, &required[i])
		}
	}
	if a := affinity.PodAffinity; a != nil {
		collect(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a := affinity.PodAntiAffinity; a != nil {
		collect(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	return terms
}

// appArmorFields copies AppArmor annotations to the fields that took their place, where those are
// empty, and tells the user to write the fields.
func appArmorFields(pod *corev1.Pod) (warnings []string) {
	if pod.Spec.OS != nil && pod.Spec.OS.Name == corev1.Windows {
		return nil
	}
	var inherited *corev1.AppArmorProfile
	if pod.Spec.SecurityContext != nil {
		inherited = pod.Spec.SecurityContext.AppArmorProfile
	}
	containers(&pod.Spec, nil, func(c *corev1.Container, _ *field.Path) {
		key := appArmorPrefix + c.Name
		annotation, annotated := pod.Annotations[key]
		if !annotated || (c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil) {
			return
		}
		profile := appArmorFromAnnotation(annotation)
		if profile != nil && apiequality.Semantic.DeepEqual(profile, inherited) {
			return
		}
		if profile != nil {
			if c.SecurityContext == nil {
				c.SecurityContext = &corev1.SecurityContext{}
			}
			c.SecurityContext.AppArmorProfile = profile
		}
		warnings = append(warnings, field.NewPath("metadata", "annotations").Key(key).String()+
			`: deprecated since v1.30; use the "appArmorProfile" field instead`)
	})
	return warnings
}

// appArmorFromAnnotation gives nil for what is not a valid profile.
func appArmorFromAnnotation(text string) *corev1.AppArmorProfile {
	var profile *corev1.AppArmorProfile
	switch local, isLocal := strings.CutPrefix(text, appArmorWords.localPrefix); {
	case text == appArmorWords.unconfined:
		profile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
	case text == appArmorWords.runtimeDefault[0]:
		profile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}
	case isLocal:
		profile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &local}
	}
	var v validator
	v.appArmorProfile(profile, nil)
	if len(v.list) > 0 {
		return nil
	}
	return profile
}
