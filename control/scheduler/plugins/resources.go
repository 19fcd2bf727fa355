package plugins

import (
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/control/scheduler/framework"
)

// resourcesFit keeps pods from nodes that have too little left, and prefers
// nodes that have the most left (Kubernetes' LeastAllocated).
type resourcesFit struct{}

func (resourcesFit) Name() string  { return "NodeResourcesFit" }
func (resourcesFit) Weight() int64 { return 1 }
func (resourcesFit) Events() framework.Event {
	return framework.NodeAdded | framework.NodeAllocatableChanged | framework.AssignedPodRemoved
}

func (resourcesFit) Prepare(pod *framework.PodInfo, _ *framework.Snapshot) framework.Check {
	return func(node *framework.NodeInfo) *framework.Rejection {
		var reasons []string
		unresolvable := false
		if len(node.Pods)+1 > node.AllowedPods {
			reasons = append(reasons, "Too many pods")
		}
		want, have, used := &pod.Requests, &node.Allocatable, &node.Requested
		short := func(name string, wanted, allocatable, requested int64) {
			if wanted > 0 && wanted > allocatable-requested {
				reasons = append(reasons, "Insufficient "+name)
				unresolvable = unresolvable || wanted > allocatable
			}
		}
		short("cpu", want.MilliCPU, have.MilliCPU, used.MilliCPU)
		short("memory", want.Memory, have.Memory, used.Memory)
		short("ephemeral-storage", want.EphemeralStorage, have.EphemeralStorage, used.EphemeralStorage)
		for name, amount := range want.Scalar {
			short(string(name), amount, have.Scalar[name], used.Scalar[name])
		}
		if len(reasons) == 0 {
			return nil
		}
		return &framework.Rejection{Reasons: reasons, Unresolvable: unresolvable}
	}
}

// Score is the mean of the free shares of CPU and memory.
func (resourcesFit) Score(pod *framework.PodInfo, _ *framework.Snapshot, nodes []*framework.NodeInfo) []int64 {
	scores := make([]int64, len(nodes))
	for i, node := range nodes {
		var sum, weights int64
		free := func(allocatable, requested, wanted int64) {
			if allocatable <= 0 {
				return
			}
			weights++
			if left := allocatable - requested - wanted; left > 0 {
				sum += left * framework.MaxScore / allocatable
			}
		}
		free(node.Allocatable.MilliCPU, node.ScoringRequested.MilliCPU, pod.ScoringRequests.MilliCPU)
		free(node.Allocatable.Memory, node.ScoringRequested.Memory, pod.ScoringRequests.Memory)
		if weights > 0 {
			scores[i] = sum / weights
		}
	}
	return scores
}

// balancedAllocation prefers nodes whose CPU and memory are used in equal parts
// after the pod is there.
type balancedAllocation struct{}

func (balancedAllocation) Name() string  { return "NodeResourcesBalancedAllocation" }
func (balancedAllocation) Weight() int64 { return 1 }

func (balancedAllocation) Score(pod *framework.PodInfo, _ *framework.Snapshot, nodes []*framework.NodeInfo) []int64 {
	if pod.Requests.MilliCPU == 0 && pod.Requests.Memory == 0 {
		// A pod that asks for nothing changes no balance.
		return nil
	}
	scores := make([]int64, len(nodes))
	for i, node := range nodes {
		// The standard deviation of two fractions is half their distance.
		with := imbalance(node, pod.Requests.MilliCPU, pod.Requests.Memory)
		scores[i] = int64((1 - with) * framework.MaxScore)
	}
	return scores
}

func imbalance(node *framework.NodeInfo, milliCPU, memory int64) float64 {
	if node.Allocatable.MilliCPU <= 0 || node.Allocatable.Memory <= 0 {
		return 1
	}
	cpu := math.Min(1, float64(node.Requested.MilliCPU+milliCPU)/float64(node.Allocatable.MilliCPU))
	mem := math.Min(1, float64(node.Requested.Memory+memory)/float64(node.Allocatable.Memory))
	return math.Abs(cpu-mem) / 2
}

// imageLocality prefers nodes that already have the pod's images.
type imageLocality struct{}

// Bounds between which the size of present images counts, per container
// (Kubernetes' pkg/scheduler/framework/plugins/imagelocality).
const (
	minImageBytes             = 23 << 20
	maxImageBytesPerContainer = 1000 << 20
)

func (imageLocality) Name() string  { return "ImageLocality" }
func (imageLocality) Weight() int64 { return 1 }

func (imageLocality) Score(pod *framework.PodInfo, snapshot *framework.Snapshot, nodes []*framework.NodeInfo) []int64 {
	containers := append(append([]corev1.Container{}, pod.Pod.Spec.InitContainers...), pod.Pod.Spec.Containers...)
	scores := make([]int64, len(nodes))
	any := false
	for _, container := range containers {
		name := normalizedImage(container.Image)
		holders := 0
		for _, node := range snapshot.Nodes {
			if _, present := node.ImageSizes[name]; present {
				holders++
			}
		}
		if holders == 0 {
			continue
		}
		any = true
		// Images that are everywhere attract more, lest one node gets all pods.
		spread := float64(holders) / float64(len(snapshot.Nodes))
		for i, node := range nodes {
			scores[i] += int64(float64(node.ImageSizes[name]) * spread)
		}
	}
	if !any {
		return nil
	}
	highest := int64(maxImageBytesPerContainer) * int64(len(containers))
	for i, bytes := range scores {
		bytes = min(max(bytes, minImageBytes), highest)
		scores[i] = framework.MaxScore * (bytes - minImageBytes) / (highest - minImageBytes)
	}
	return scores
}

// normalizedImage adds the tag that a name without one means.
func normalizedImage(name string) string {
	if strings.LastIndex(name, ":") <= strings.LastIndex(name, "/") {
		return name + ":latest"
	}
	return name
}
