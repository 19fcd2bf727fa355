// Package downward resolves what a container may ask about its own pod: fields
// (fieldRef) and resources (resourceFieldRef), for environment variables and
// for downward API volumes alike.
//
// A pod and what the node knows about it go in, a string comes out.
package downward

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Addresses of the pod and of the node it runs on, the primary first.
type Addresses struct {
	PodIPs, HostIPs []string
}

// Field returns the value of a field path such as metadata.labels['app'].
func Field(pod *v1.Pod, path string, a Addresses) (string, error) {
	if base, key, ok := subscript(path); ok {
		switch base {
		case "metadata.annotations":
			return pod.Annotations[key], nil
		case "metadata.labels":
			return pod.Labels[key], nil
		}
		return "", fmt.Errorf("fieldPath %q does not support subscript", base)
	}
	switch path {
	case "metadata.annotations":
		return FormatMap(pod.Annotations), nil
	case "metadata.labels":
		return FormatMap(pod.Labels), nil
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(a.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(a.HostIPs, ","), nil
	case "status.podIP":
		return first(a.PodIPs), nil
	case "status.podIPs":
		return strings.Join(a.PodIPs, ","), nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %v", path)
}

// FormatMap writes a map as sorted lines of key="value", quoted as Go does.
func FormatMap(m map[string]string) string {
	lines := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, k+"="+strconv.Quote(m[k]))
	}
	return strings.Join(lines, "\n")
}

// Bounds are the limits of containers that have none of their own: the pod's,
// else the node's allocatable amounts.
func Bounds(pod *v1.Pod, allocatable v1.ResourceList) v1.ResourceList {
	if pod.Spec.Resources == nil || len(pod.Spec.Resources.Limits) == 0 {
		return allocatable
	}
	bounds := allocatable.DeepCopy()
	for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
		limit, ok := pod.Spec.Resources.Limits[name]
		if _, known := bounds[name]; ok && known && !limit.IsZero() {
			bounds[name] = limit
		}
	}
	return bounds
}

// Resource returns a container's request or limit in units of the divisor,
// rounded up. A limit that is not set is what bounds says, see Bounds; huge
// pages are never more than asked for.
func Resource(container *v1.Container, ref *v1.ResourceFieldSelector, bounds v1.ResourceList) (string, error) {
	kind, name, _ := strings.Cut(ref.Resource, ".")
	resourceName := v1.ResourceName(name)
	bounded := resourceName == v1.ResourceCPU || resourceName == v1.ResourceMemory || resourceName == v1.ResourceEphemeralStorage
	if !bounded && !strings.HasPrefix(name, v1.ResourceHugePagesPrefix) {
		return "", fmt.Errorf("unsupported container resource : %v", ref.Resource)
	}
	var quantity resource.Quantity
	switch kind {
	case "limits":
		quantity = container.Resources.Limits[resourceName]
		if quantity.IsZero() && bounded {
			quantity = bounds[resourceName]
		}
	case "requests":
		quantity = container.Resources.Requests[resourceName]
	default:
		return "", fmt.Errorf("unsupported container resource : %v", ref.Resource)
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if resourceName == v1.ResourceCPU {
		return ceil(quantity.MilliValue(), divisor.MilliValue()), nil
	}
	return ceil(quantity.Value(), divisor.Value()), nil
}

func ceil(value, divisor int64) string {
	return strconv.FormatInt(int64(math.Ceil(float64(value)/float64(divisor))), 10)
}

// subscript splits metadata.labels['app'] into its map and its key.
func subscript(path string) (base, key string, ok bool) {
	if !strings.HasSuffix(path, "']") {
		return "", "", false
	}
	base, key, ok = strings.Cut(strings.TrimSuffix(path, "']"), "['")
	return base, key, ok && base != ""
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
