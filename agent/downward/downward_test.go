package downward

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestResources(t *testing.T) {
	t.Parallel()
	q := resource.MustParse
	container := &v1.Container{Resources: v1.ResourceRequirements{
		Requests: v1.ResourceList{"cpu": q("125m"), "hugepages-2Mi": q("4Mi")}, Limits: v1.ResourceList{"memory": q("100Mi"), "hugepages-2Mi": q("4Mi")},
	}}
	node := v1.ResourceList{"cpu": q("2"), "memory": q("1Gi"), "ephemeral-storage": q("10Gi"), "example.com/device": q("3")}
	pod := &v1.Pod{Spec: v1.PodSpec{Resources: &v1.ResourceRequirements{Limits: v1.ResourceList{"cpu": q("1500m"), "memory": q("200Mi")}}}}
	for name, test := range map[string]struct {
		resource, divisor string
		bounds            v1.ResourceList
		want              string
		wrong             bool
	}{
		"a request in parts":                  {"requests.cpu", "1m", node, "125", false},
		"a request, rounded up":               {"requests.cpu", "0", node, "1", false},
		"a request that is not set":           {"requests.memory", "1", node, "0", false},
		"a limit":                             {"limits.memory", "1Mi", node, "100", false},
		"a limit that is not set":             {"limits.cpu", "1m", node, "2000", false},
		"a limit that only the pod has":       {"limits.cpu", "1m", Bounds(pod, node), "1500", false},
		"a limit of its own in such a pod":    {"limits.memory", "1Mi", Bounds(pod, node), "100", false},
		"what the pod does not bound":         {"limits.ephemeral-storage", "1Gi", Bounds(pod, node), "10", false},
		"huge pages":                          {"limits.hugepages-2Mi", "1Mi", node, "4", false},
		"huge pages nobody asked for":         {"limits.hugepages-1Gi", "1", node, "0", false},
		"what containers cannot be told":      {"limits.example.com/device", "1", node, "", true},
		"what is neither a request nor limit": {"usage.cpu", "1", node, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Resource(container, &v1.ResourceFieldSelector{Resource: test.resource, Divisor: q(test.divisor)}, test.bounds)
			if got != test.want || (err != nil) != test.wrong {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
