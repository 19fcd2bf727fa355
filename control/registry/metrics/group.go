// Package metrics holds the group metrics.k8s.io: what pods and nodes use at the
// moment, as kubectl top and the pod autoscaler ask for it.
//
// Nothing is stored: an answer is made of what the agents of the nodes in
// question say when somebody asks, and serves others for a few seconds.
package metrics

import (
	"fmt"

	"k8s.io/apiserver/pkg/registry/rest"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/skiff-run/skiff/control/registry"
)

// Group builds the group on the core group's pods and nodes.
func Group(deps *registry.Dependencies, core registry.Storages) (registry.Group, error) {
	pods, isLister := core["pods"].(rest.Lister)
	nodes, isReader := core["nodes"].(nodeReader)
	if !isLister || !isReader {
		return registry.Group{}, fmt.Errorf("metrics group: pods are %T, nodes %T", core["pods"], core["nodes"])
	}
	source := newSource(deps.Agents, nodes)
	return registry.Group{Name: metricsv1beta1.GroupName, Versions: map[string]registry.Storages{"v1beta1": {
		"pods": &podMetrics{pods: pods, source: source}, "nodes": &nodeMetrics{nodes: nodes, source: source},
	}}}, nil
}
