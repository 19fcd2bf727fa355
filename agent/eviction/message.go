package eviction

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/skiff-run/skiff/internal/config"
)

// Reason is the reason of evicted pods and of the events about them.
const Reason = "Evicted"

// message says why the pod was evicted, and annotations say it again for programs.
func message(name v1.ResourceName, pod *v1.Pod, used *stats.PodStats, thresholds []config.Threshold, seen Observations) (text string, annotations map[string]string) {
	text = fmt.Sprintf("The node was low on resource: %v. ", name)
	if i := slices.IndexFunc(thresholds, func(t config.Threshold) bool { return resourceOf(t.Signal) == name }); i >= 0 {
		o := seen[thresholds[i].Signal]
		text += fmt.Sprintf("Threshold quantity: %v, available: %v. ", thresholds[i].Value.Of(o.Capacity), o.available())
	}
	annotations = map[string]string{"starved_resource": string(name)}
	if used == nil {
		return text, annotations
	}
	if pod.Spec.Resources != nil && name == v1.ResourceMemory && used.Memory != nil {
		if request, asked := pod.Spec.Resources.Requests[name]; asked {
			amount := quantity(used.Memory.WorkingSetBytes)
			text += fmt.Sprintf("Pod %s was using %s, request is %s, has larger consumption of %v. ", pod.Name, amount, request.String(), name)
			annotations["offending_pod"], annotations["offending_pod_usage"] = pod.Name, amount
		}
	}
	var names, amounts []string
	for i := range used.Containers {
		c := &used.Containers[i]
		spec := containerOf(pod, c.Name)
		if spec == nil {
			continue
		}
		var amount uint64
		switch {
		case name == v1.ResourceMemory && c.Memory != nil && c.Memory.WorkingSetBytes != nil:
			amount = *c.Memory.WorkingSetBytes
		case name == v1.ResourceEphemeralStorage && c.Rootfs != nil && c.Rootfs.UsedBytes != nil && c.Logs != nil && c.Logs.UsedBytes != nil:
			amount = *c.Rootfs.UsedBytes + *c.Logs.UsedBytes
		}
		request := spec.Resources.Requests[name]
		if int64(amount) > request.Value() {
			text += fmt.Sprintf("Container %s was using %s, request is %s, has larger consumption of %v. ", c.Name, quantity(&amount), request.String(), name)
			names, amounts = append(names, c.Name), append(amounts, quantity(&amount))
		}
	}
	annotations["offending_containers"] = strings.Join(names, ",")
	annotations["offending_containers_usage"] = strings.Join(amounts, ",")
	return text, annotations
}

func quantity(n *uint64) string { return resource.NewQuantity(number(n), resource.BinarySI).String() }

func containerOf(pod *v1.Pod, name string) *v1.Container {
	for _, containers := range [][]v1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			if containers[i].Name == name {
				return &containers[i]
			}
		}
	}
	return nil
}
