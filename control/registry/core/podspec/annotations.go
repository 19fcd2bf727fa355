package podspec

import (
	"encoding/json"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Annotations with a meaning of their own on pods.
const (
	deletionCostAnnotation = "controller.kubernetes.io/pod-deletion-cost"
	tolerationsAnnotation  = "scheduler.alpha.kubernetes.io/tolerations"
	appArmorPrefix         = corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix
)

// IsMirror tells whether the pod is an agent's report of a static pod.
func IsMirror(pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return mirror
}

// annotations checks the annotations that say something about the pod.
func (v *validator) annotations(annotations map[string]string, path *field.Path) {
	if value, mirror := annotations[corev1.MirrorPodAnnotationKey]; mirror && v.spec.NodeName == "" {
		v.invalid(path.Key(corev1.MirrorPodAnnotationKey), value, "must set spec.nodeName if mirror pod annotation is set")
	}
	if value := annotations[tolerationsAnnotation]; value != "" {
		var tolerations []corev1.Toleration
		if err := json.Unmarshal([]byte(value), &tolerations); err != nil {
			v.invalid(path, tolerationsAnnotation, err.Error())
		} else {
			v.tolerations(tolerations, path.Child(tolerationsAnnotation))
		}
	}
	if cost, set := annotations[deletionCostAnnotation]; set && !isDeletionCost(cost) {
		v.invalid(path.Key(deletionCostAnnotation), cost, "must be a 32bit integer")
	}
	v.seccompAnnotations(annotations, path)
	v.appArmorAnnotations(annotations, path)
}

// isDeletionCost accepts integers as people write them: no plus sign, no leading zero.
func isDeletionCost(text string) bool {
	if text == "" || text[0] == '+' || (text[0] == '0' && text != "0") {
		return false
	}
	_, err := strconv.ParseInt(text, 10, 32)
	return err == nil
}

// annotationUpdates keeps the annotations fixed that nodes act upon when they start the pod.
func (v *validator) annotationUpdates(updated, old map[string]string, path *field.Path) {
	for _, key := range sortedKeys(old) {
		if value, kept := updated[key]; kept && value == old[key] {
			continue
		}
		if strings.HasPrefix(key, appArmorPrefix) {
			v.forbidden(path.Key(key), "may not remove or update AppArmor annotations")
		}
		if key == corev1.MirrorPodAnnotationKey {
			v.forbidden(path.Key(key), "may not remove or update mirror pod annotation")
		}
	}
	for _, key := range sortedKeys(updated) {
		if _, known := old[key]; known {
			continue
		}
		if strings.HasPrefix(key, appArmorPrefix) {
			v.forbidden(path.Key(key), "may not add AppArmor annotations")
		}
		if key == corev1.MirrorPodAnnotationKey {
			v.forbidden(path.Key(key), "may not add mirror pod annotation")
		}
	}
	v.annotations(updated, path)
}
