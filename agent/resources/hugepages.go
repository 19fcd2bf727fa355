package resources

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// hugepageLimits bounds every size the spec names, in the container or in the pod; the container's own
// limit counts first. Sizes it does not name are not for it.
func hugepageLimits(pod *v1.Pod, container *v1.Container) []*runtimeapi.HugepageLimit {
	limits := map[string]uint64{}
	for _, size := range pageSizes() {
		limits[size] = 0
	}
	if pod.Spec.Resources != nil {
		addHugepages(limits, pod.Spec.Resources.Limits)
	}
	addHugepages(limits, container.Resources.Limits)
	var list []*runtimeapi.HugepageLimit
	for size, limit := range limits {
		list = append(list, &runtimeapi.HugepageLimit{PageSize: size, Limit: limit})
	}
	slices.SortFunc(list, func(a, b *runtimeapi.HugepageLimit) int { return strings.Compare(a.GetPageSize(), b.GetPageSize()) })
	return list
}

func addHugepages(limits map[string]uint64, list v1.ResourceList) {
	for name, quantity := range list {
		if size, ok := hugepageSize(name); ok {
			limits[size] = uint64(quantity.Value())
		}
	}
}

// pageSizes are those the kernel offers, as its cgroups name them. They do not change while it runs.
var pageSizes = sync.OnceValue(func() []string { return findPageSizes("/sys/kernel/mm/hugepages") })

func findPageSizes(dir string) []string {
	found, err := filepath.Glob(filepath.Join(dir, "hugepages-*kB"))
	if err != nil {
		return nil
	}
	var sizes []string
	for _, path := range found {
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		if size, ok := hugepageSize(v1.ResourceName(v1.ResourceHugePagesPrefix + resource.NewQuantity(kib<<10, resource.BinarySI).String())); ok {
			sizes = append(sizes, size)
		}
	}
	return sizes
}
