package resources

import (
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestExtendedResources(t *testing.T) {
	t.Parallel()
	for name, want := range map[v1.ResourceName]bool{
		"example.com/gpu": true, "scheduling.k8s.io/foo": true,
		"cpu": false, "memory": false, "hugepages-2Mi": false, "kubernetes.io/batch-cpu": false, "requests.example.com/gpu": false,
	} {
		if got := Extended(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
