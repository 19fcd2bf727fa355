package usage

import (
	"context"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// Top is the answer of /metrics/usage: the figures behind kubectl top, of one
// node. What was not looked at long enough for a rate is missing.
type Top struct {
	Node *metrics.NodeMetrics `json:"node,omitempty"`
	Pods []metrics.PodMetrics `json:"pods"`
}

// Top returns the present figures.
func (c *Collector) Top(ctx context.Context) *Top {
	top := &Top{Pods: []metrics.PodMetrics{}}
	if n := c.nodeUsage(); n.window > 0 {
		top.Node = &metrics.NodeMetrics{
			ObjectMeta: metav1.ObjectMeta{Name: c.NodeName}, Timestamp: metav1.NewTime(n.at), Window: metav1.Duration{Duration: n.window},
			Usage: resources(n.nanoCores, n.workingSet),
		}
	}
	for _, pod := range c.Runtime.Usage(ctx, false) {
		m := metrics.PodMetrics{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace}}
		for i := range pod.Containers {
			used := &pod.Containers[i]
			if used.Window == 0 {
				m.Containers = nil
				break
			}
			m.Containers = append(m.Containers, metrics.ContainerMetrics{Name: used.Name, Usage: resources(used.NanoCores, used.WorkingSet)})
			// The pod's figures are as old as the oldest of its containers, over its window.
			if m.Timestamp.IsZero() || used.At.Before(m.Timestamp.Time) {
				m.Timestamp, m.Window = metav1.NewTime(used.At), metav1.Duration{Duration: used.Window}
			}
		}
		if len(m.Containers) > 0 {
			top.Pods = append(top.Pods, m)
		}
	}
	return top
}

func resources(nanoCores, memory uint64) v1.ResourceList {
	return v1.ResourceList{
		v1.ResourceCPU:    *resource.NewScaledQuantity(int64(nanoCores), resource.Nano),
		v1.ResourceMemory: *resource.NewQuantity(int64(memory), resource.BinarySI),
	}
}
