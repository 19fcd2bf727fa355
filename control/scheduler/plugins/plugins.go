// Package plugins holds the rules by which nodes are chosen: one file for each
// plugin of Kubernetes' default profile that concerns what the API offers, with
// the plugin's name, reasons and weight. All are pure functions of the pod and
// the snapshot, those for volumes also of what the API says of volumes.
package plugins

import (
	"k8s.io/apimachinery/pkg/labels"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/control/scheduler/framework"
)

// Filters returns the filters in the order in which their reasons are found:
// cheap ones first. volumes is nil where there are no claims.
func Filters(volumes *Volumes) []framework.Filter {
	filters := []framework.Filter{
		nodeUnschedulable{}, nodeName{}, taintToleration{}, nodeAffinity{}, nodePorts{}, resourcesFit{},
	}
	if volumes != nil {
		filters = append(filters, volumeRestrictions{volumes}, nodeVolumeLimits{volumes}, volumeBinding{volumes}, volumeZone{volumes})
	}
	return append(filters, podTopologySpread{}, interPodAffinity{})
}

// Scores returns the scores of the default profile. defaultSelector returns the
// selector of the services and replica sets a pod belongs to, nil for none: its
// fellows are spread when the pod does not say how.
func Scores(defaultSelector func(*corev1.Pod) labels.Selector) []framework.Score {
	return []framework.Score{
		taintToleration{}, nodeAffinity{}, spreadScore{defaultSelector: defaultSelector}, interPodAffinity{},
		resourcesFit{}, balancedAllocation{}, imageLocality{},
	}
}

func reject(reasons ...string) *framework.Rejection { return &framework.Rejection{Reasons: reasons} }

func rejectForGood(reasons ...string) *framework.Rejection {
	return &framework.Rejection{Reasons: reasons, Unresolvable: true}
}
