package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// containers calls visit for every container of the spec, init containers first, ephemeral ones
// last, with the container's path. An ephemeral container is seen as the container it shares its
// fields with; changes go to the spec.
func containers(spec *corev1.PodSpec, path *field.Path, visit func(*corev1.Container, *field.Path)) {
	at := path.Child("initContainers")
	for i := range spec.InitContainers {
		visit(&spec.InitContainers[i], at.Index(i))
	}
	at = path.Child("containers")
	for i := range spec.Containers {
		visit(&spec.Containers[i], at.Index(i))
	}
	at = path.Child("ephemeralContainers")
	for i := range spec.EphemeralContainers {
		visit((*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon), at.Index(i))
	}
}

// isSidecar tells whether an init container keeps running beside the regular containers.
func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func isTrue(b *bool) bool  { return b != nil && *b }
func isFalse(b *bool) bool { return b != nil && !*b }

func setIfNil[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

func setIfZero[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// ContainerNames lists a pod's containers, init containers first and ephemeral ones last.
func ContainerNames(spec *corev1.PodSpec) []string {
	var names []string
	containers(spec, nil, func(c *corev1.Container, _ *field.Path) { names = append(names, c.Name) })
	return names
}

// NamesAndImages lists the names and the images of the regular containers, as tables show them.
func NamesAndImages(spec *corev1.PodSpec) (names, images string) {
	for i := range spec.Containers {
		if i > 0 {
			names, images = names+",", images+","
		}
		names, images = names+spec.Containers[i].Name, images+spec.Containers[i].Image
	}
	return names, images
}
