package podspec

import (
	"reflect"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ephemeralFields are the fields an ephemeral container may set. It is a debugging guest: it has no
// guaranteed resources and no part in the pod's life, so new container fields are not its own.
var ephemeralFields = sets.New("Name", "Image", "Command", "Args", "WorkingDir", "EnvFrom", "Env",
	"VolumeMounts", "VolumeDevices", "TerminationMessagePath", "TerminationMessagePolicy",
	"ImagePullPolicy", "SecurityContext", "Stdin", "StdinOnce", "TTY")

// templateMetaFields are the metadata fields the template of a volume claim may set.
var templateMetaFields = sets.New("Annotations", "Labels")

func (v *validator) ephemeralContainers(path *field.Path) {
	targets := sets.New[string]()
	for _, list := range [][]corev1.Container{v.spec.Containers, v.spec.InitContainers} {
		for i := range list {
			targets.Insert(list[i].Name)
		}
	}
	names := targets.Clone()
	for i := range v.spec.EphemeralContainers {
		e, at := &v.spec.EphemeralContainers[i], path.Index(i)
		v.container((*corev1.Container)(&e.EphemeralContainerCommon), at)
		v.imageNotPadded(e.Image, at)
		if names.Has(e.Name) {
			v.duplicate(at.Child("name"), e.Name)
		}
		names.Insert(e.Name)
		if e.TargetContainerName != "" && !targets.Has(e.TargetContainerName) {
			v.notFound(at.Child("targetContainerName"), e.TargetContainerName)
		}
		v.onlyFields(e.EphemeralContainerCommon, ephemeralFields, "cannot be set for an Ephemeral Container", at)
		// Sub-paths are bind mounts that stay until the pod ends.
		for j, mount := range e.VolumeMounts {
			if mount.SubPath != "" {
				v.forbidden(at.Child("volumeMounts").Index(j).Child("subPath"), "cannot be set for an Ephemeral Container")
			}
			if mount.SubPathExpr != "" {
				v.forbidden(at.Child("volumeMounts").Index(j).Child("subPathExpr"), "cannot be set for an Ephemeral Container")
			}
		}
	}
}

// onlyFields reports every field of the struct value that is set and not in the allowed set, so
// that a field added to the API is refused until somebody has thought about it.
func (v *validator) onlyFields(value any, allowed sets.Set[string], detail string, path *field.Path) {
	structure := reflect.ValueOf(value)
	for i := range structure.NumField() {
		name := structure.Type().Field(i).Name
		if allowed.Has(name) || structure.Field(i).IsZero() {
			continue
		}
		letters := []rune(name)
		letters[0] = unicode.ToLower(letters[0])
		v.forbidden(path.Child(string(letters)), detail)
	}
}

func (v *validator) templateMeta(meta metav1.ObjectMeta, path *field.Path) {
	v.onlyFields(meta, templateMetaFields, "cannot be set", path)
}
