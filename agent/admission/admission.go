// Package admission decides whether this node can take a pod that was assigned
// to it: selectors, taints, host ports, resources and sysctls.
//
// It is a pure function of the pod, the node and the pods that are here; its
// refusals carry the reasons and messages of the kubelet.
package admission

import (
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/skiff-run/skiff/agent/podsource"
	"github.com/skiff-run/skiff/agent/resources"
)

// Node is what the decision needs to know of the node.
type Node struct {
	// Object is the Node as the API has it, nil while it is not known.
	Object      *v1.Node
	Allocatable v1.ResourceList
	// UnsafeSysctls are allowed besides the safe ones; a trailing * is a pattern.
	UnsafeSysctls []string
	// AppArmor says whether the kernel enforces profiles.
	AppArmor bool
	// SELinux says whether the kernel labels processes.
	SELinux bool
}

// Admit reports whether the pod may run beside the active ones.
func Admit(pod *v1.Pod, active []*v1.Pod, node Node) (reason, message string, ok bool) {
	for _, check := range []func() (string, string){
		func() (string, string) { return sysctls(pod, node) },
		func() (string, string) { return operatingSystem(pod, node) },
		func() (string, string) { return affinity(pod, node) },
		func() (string, string) { return taints(pod, node) },
		func() (string, string) { return ports(pod, active) },
		func() (string, string) { return fit(pod, active, node) },
		func() (string, string) { return appArmor(pod, node) },
		func() (string, string) { return selinux(pod, node) },
	} {
		if reason, message := check(); reason != "" {
			return reason, message, false
		}
	}
	return "", "", true
}

func predicate(name, why string) (string, string) {
	return name, fmt.Sprintf("Predicate %s failed: %s", name, why)
}

func affinity(pod *v1.Pod, node Node) (string, string) {
	if node.Object == nil {
		return "", ""
	}
	if matches, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node.Object); err != nil || !matches {
		return predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
	}
	return "", ""
}

// taints that drive pods out also keep them out; static pods do not care.
func taints(pod *v1.Pod, node Node) (string, string) {
	if node.Object == nil || podsource.IsStatic(pod) {
		return "", ""
	}
	for i := range node.Object.Spec.Taints {
		t := &node.Object.Spec.Taints[i]
		if t.Effect != v1.TaintEffectNoExecute {
			continue
		}
		if !slices.ContainsFunc(pod.Spec.Tolerations, func(tol v1.Toleration) bool { return tolerates(&tol, t) }) {
			return predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate")
		}
	}
	return "", ""
}

func tolerates(toleration *v1.Toleration, taint *v1.Taint) bool {
	if toleration.Effect != "" && toleration.Effect != taint.Effect {
		return false
	}
	if toleration.Key != "" && toleration.Key != taint.Key {
		return false
	}
	return toleration.Operator == v1.TolerationOpExists || ((toleration.Operator == "" || toleration.Operator == v1.TolerationOpEqual) && toleration.Key != "" && toleration.Value == taint.Value)
}

// hostPort is one port a pod takes on the node.
type hostPort struct {
	protocol v1.Protocol
	address  string
	port     int32
}

func (a hostPort) conflicts(b hostPort) bool {
	return a.port == b.port && a.protocol == b.protocol && (a.address == b.address || a.address == "" || b.address == "")
}

func hostPorts(pod *v1.Pod) []hostPort {
	var ports []hostPort
	for i := range pod.Spec.Containers {
		for _, p := range pod.Spec.Containers[i].Ports {
			if p.HostPort <= 0 {
				continue
			}
			h := hostPort{protocol: p.Protocol, address: p.HostIP, port: p.HostPort}
			if h.protocol == "" {
				h.protocol = v1.ProtocolTCP
			}
			if h.address == "0.0.0.0" || h.address == "::" {
				h.address = ""
			}
			ports = append(ports, h)
		}
	}
	return ports
}

func ports(pod *v1.Pod, active []*v1.Pod) (string, string) {
	wanted := hostPorts(pod)
	if len(wanted) == 0 {
		return "", ""
	}
	for _, other := range active {
		for _, taken := range hostPorts(other) {
			if slices.ContainsFunc(wanted, taken.conflicts) {
				return predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports")
			}
		}
	}
	return "", ""
}

// shortage is a resource of which too little is left.
type shortage struct {
	name                      v1.ResourceName
	requested, used, capacity int64
}

// fit compares requests with what is left.
func fit(pod *v1.Pod, active []*v1.Pod, node Node) (string, string) {
	for _, s := range shortages(pod, active, node) {
		return "OutOf" + string(s.name), fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", s.name, s.requested, s.used, s.capacity)
	}
	return "", ""
}

// shortages lists what the pod lacks: places for pods first, then by name. Resources that the node does not know are
// counted by somebody else.
func shortages(pod *v1.Pod, active []*v1.Pod, node Node) []shortage {
	var list []shortage
	limit := node.Allocatable[v1.ResourcePods]
	if int64(len(active))+1 > limit.Value() {
		list = append(list, shortage{v1.ResourcePods, 1, int64(len(active)), limit.Value()})
	}
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	used := map[v1.ResourceName]int64{}
	for _, other := range active {
		for name, q := range resourcehelper.PodRequests(other, resourcehelper.PodResourcesOptions{}) {
			used[name] += amount(name, q.MilliValue(), q.Value())
		}
	}
	var ofObject v1.ResourceList
	if node.Object != nil {
		ofObject = node.Object.Status.Allocatable
	}
	for _, name := range slices.Sorted(maps.Keys(requests)) {
		q := requests[name]
		capacity, known := node.Allocatable[name]
		if !known && resources.Extended(name) {
			// Of the cluster as a whole where the node has none of it: the scheduler's business.
			if capacity, known = ofObject[name]; !known {
				continue
			}
		}
		asked := amount(name, q.MilliValue(), q.Value())
		total := amount(name, capacity.MilliValue(), capacity.Value())
		if asked > 0 && asked > total-used[name] {
			list = append(list, shortage{name, asked, used[name], total})
		}
	}
	return list
}

// amount is in milli-CPU for CPU, else in whole units.
func amount(name v1.ResourceName, milli, whole int64) int64 {
	if name == v1.ResourceCPU {
		return milli
	}
	return whole
}
