package framework

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	schedulingcorev1 "k8s.io/component-helpers/scheduling/corev1"
)

// PodInfo is a pod with everything that decisions need of it worked out once.
// It is immutable.
type PodInfo struct {
	Pod *corev1.Pod
	// Requests is what fit is judged by, ScoringRequests what scores are.
	Requests, ScoringRequests Resource
	HostPorts                 []HostPort

	RequiredAffinity      []AffinityTerm
	RequiredAntiAffinity  []AffinityTerm
	PreferredAffinity     []WeightedAffinityTerm
	PreferredAntiAffinity []WeightedAffinityTerm
}

// AffinityTerm is a parsed pod affinity term.
type AffinityTerm struct {
	TopologyKey       string
	namespaces        sets.Set[string]
	namespaceSelector labels.Selector
	selector          labels.Selector
}

// WeightedAffinityTerm is a preferred term with its weight, 1 to 100.
type WeightedAffinityTerm struct {
	AffinityTerm
	Weight int64
}

// HostPort is a port of the node that a pod occupies.
type HostPort struct {
	IP       string
	Protocol corev1.Protocol
	Port     int32
}

// NewPodInfo works out a pod. The error names an affinity term that the API
// should not have accepted.
func NewPodInfo(pod *corev1.Pod) (*PodInfo, error) {
	info := &PodInfo{
		Pod: pod, Requests: podRequests(pod), ScoringRequests: podScoringRequests(pod), HostPorts: hostPorts(pod),
	}
	affinity := pod.Spec.Affinity
	if affinity == nil {
		return info, nil
	}
	var err error
	if a := affinity.PodAffinity; a != nil {
		if info.RequiredAffinity, err = terms(pod, a.RequiredDuringSchedulingIgnoredDuringExecution); err != nil {
			return nil, fmt.Errorf("pod affinity: %w", err)
		}
		if info.PreferredAffinity, err = weightedTerms(pod, a.PreferredDuringSchedulingIgnoredDuringExecution); err != nil {
			return nil, fmt.Errorf("preferred pod affinity: %w", err)
		}
	}
	if a := affinity.PodAntiAffinity; a != nil {
		if info.RequiredAntiAffinity, err = terms(pod, a.RequiredDuringSchedulingIgnoredDuringExecution); err != nil {
			return nil, fmt.Errorf("pod anti-affinity: %w", err)
		}
		if info.PreferredAntiAffinity, err = weightedTerms(pod, a.PreferredDuringSchedulingIgnoredDuringExecution); err != nil {
			return nil, fmt.Errorf("preferred pod anti-affinity: %w", err)
		}
	}
	return info, nil
}

// Priority of the pod; 0 when it has none.
func (p *PodInfo) Priority() int32 { return schedulingcorev1.PodPriority(p.Pod) }

// HasAffinity says whether placing the pod depends on other pods' labels, or
// other pods' placement on it.
func (p *PodInfo) HasAffinity() bool {
	return len(p.RequiredAffinity)+len(p.RequiredAntiAffinity)+len(p.PreferredAffinity)+len(p.PreferredAntiAffinity) > 0
}

func terms(pod *corev1.Pod, in []corev1.PodAffinityTerm) ([]AffinityTerm, error) {
	var out []AffinityTerm
	for i := range in {
		term, err := newAffinityTerm(pod, &in[i])
		if err != nil {
			return nil, fmt.Errorf("term %d: %w", i, err)
		}
		out = append(out, term)
	}
	return out, nil
}

func weightedTerms(pod *corev1.Pod, in []corev1.WeightedPodAffinityTerm) ([]WeightedAffinityTerm, error) {
	var out []WeightedAffinityTerm
	for i := range in {
		term, err := newAffinityTerm(pod, &in[i].PodAffinityTerm)
		if err != nil {
			return nil, fmt.Errorf("term %d: %w", i, err)
		}
		out = append(out, WeightedAffinityTerm{AffinityTerm: term, Weight: int64(in[i].Weight)})
	}
	return out, nil
}

// newAffinityTerm parses a term of the pod. matchLabelKeys need no care here:
// the API server merges them into the selector when the pod is created.
func newAffinityTerm(pod *corev1.Pod, term *corev1.PodAffinityTerm) (AffinityTerm, error) {
	selector, err := metav1.LabelSelectorAsSelector(term.LabelSelector)
	if err != nil {
		return AffinityTerm{}, fmt.Errorf("label selector: %w", err)
	}
	namespaceSelector, err := metav1.LabelSelectorAsSelector(term.NamespaceSelector)
	if err != nil {
		return AffinityTerm{}, fmt.Errorf("namespace selector: %w", err)
	}
	namespaces := sets.New(term.Namespaces...)
	if len(term.Namespaces) == 0 && term.NamespaceSelector == nil {
		namespaces.Insert(pod.Namespace)
	}
	return AffinityTerm{TopologyKey: term.TopologyKey, namespaces: namespaces, namespaceSelector: namespaceSelector, selector: selector}, nil
}

// Matches says whether the term speaks of the pod; namespaceLabels are the
// labels of the pod's namespace.
func (t *AffinityTerm) Matches(pod *corev1.Pod, namespaceLabels labels.Set) bool {
	if !t.namespaces.Has(pod.Namespace) && !t.namespaceSelector.Matches(namespaceLabels) {
		return false
	}
	return t.selector.Matches(labels.Set(pod.Labels))
}

func hostPorts(pod *corev1.Pod) []HostPort {
	var ports []HostPort
	add := func(containers []corev1.Container) {
		for i := range containers {
			for _, port := range containers[i].Ports {
				if port.HostPort == 0 {
					continue
				}
				ports = append(ports, HostPort{IP: wildcard(port.HostIP), Protocol: protocol(port.Protocol), Port: port.HostPort})
			}
		}
	}
	add(pod.Spec.Containers)
	for i := range pod.Spec.InitContainers {
		// Only sidecars keep running beside the containers.
		if c := pod.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add([]corev1.Container{c})
		}
	}
	return ports
}

func wildcard(ip string) string {
	if ip == "" {
		return "0.0.0.0"
	}
	return ip
}

func protocol(p corev1.Protocol) corev1.Protocol {
	if p == "" {
		return corev1.ProtocolTCP
	}
	return p
}

// Conflicts says whether both cannot be held on one node: same protocol and
// port, and addresses of which one includes the other.
func (h HostPort) Conflicts(other HostPort) bool {
	return h.Port == other.Port && h.Protocol == other.Protocol &&
		(h.IP == other.IP || h.IP == "0.0.0.0" || other.IP == "0.0.0.0")
}
