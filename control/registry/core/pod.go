package core

import (
	"context"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/warning"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

// podKind serves pods. What a pod may look like and how it may change is podspec's.
func podKind() registry.Kind[*corev1.Pod] {
	return registry.Kind[*corev1.Pod]{
		Version: corev1.SchemeGroupVersion, Plural: "pods", Singular: "pod", ShortNames: []string{"po"}, Categories: []string{"all"},
		New:     func() *corev1.Pod { return &corev1.Pod{} },
		NewList: func() runtime.Object { return &corev1.PodList{} },
		Default: podspec.SetPodDefaults,
		Spec:    func(p *corev1.Pod) any { return &p.Spec },
		Status:  func(p *corev1.Pod) any { return &p.Status },
		PrepareForCreate: func(ctx context.Context, p *corev1.Pod) {
			for _, text := range podspec.PrepareForCreate(p, metav1.NewTime(time.Now())) {
				warning.AddWarning(ctx, "", text)
			}
		},
		PrepareForUpdate: func(_ context.Context, p, old *corev1.Pod) { podspec.PrepareForUpdate(p, old) },
		Validate:         func(_ context.Context, p *corev1.Pod) field.ErrorList { return podspec.ValidatePod(p) },
		ValidateUpdate: func(_ context.Context, p, old *corev1.Pod) field.ErrorList {
			return podspec.ValidatePodUpdate(p, old)
		},
		ValidateUpdateOnly: true,
		Warnings:           podWarnings,
		PrepareStatus:      func(_ context.Context, p, old *corev1.Pod) { podspec.PrepareForStatusUpdate(p, old) },
		ValidateStatus: func(_ context.Context, p, old *corev1.Pod) field.ErrorList {
			return podspec.ValidatePodStatusUpdate(p, old)
		},
		StatusWarnings: func(_ context.Context, p, _ *corev1.Pod) []string { return podspec.StatusWarnings(&p.Status) },
		GracefulDelete: func(_ context.Context, p *corev1.Pod, options *metav1.DeleteOptions) bool {
			return podGracePeriod(p, options)
		},
		Fields:  podFields,
		Index:   []string{"spec.nodeName"},
		Columns: podColumns(),
		Row:     func(p *corev1.Pod) []any { return podRow(p, time.Now()) },
	}
}

// podWarnings speak up on creation only: pods are updated by machines.
func podWarnings(_ context.Context, p, old *corev1.Pod) []string {
	if old != nil {
		return nil
	}
	var texts []string
	if messages := validation.IsDNS1123Label(p.Name); len(messages) > 0 {
		texts = append(texts, fmt.Sprintf("metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: %v", messages))
	}
	return append(texts, podspec.Warnings(nil, &p.Spec, &p.ObjectMeta)...)
}

// podGracePeriod settles how long a pod has to end: what the client says, else what the pod says;
// no time at all when no node runs it or it has ended already.
func podGracePeriod(p *corev1.Pod, options *metav1.DeleteOptions) bool {
	if options == nil {
		return false
	}
	var period int64
	if options.GracePeriodSeconds != nil {
		period = *options.GracePeriodSeconds
	} else if p.Spec.TerminationGracePeriodSeconds != nil {
		period = *p.Spec.TerminationGracePeriodSeconds
	}
	ended := p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
	switch {
	case p.Spec.NodeName == "" || ended:
		period = 0
	case period < 0:
		period = 1
	}
	options.GracePeriodSeconds = &period
	return true
}

func podFields(p *corev1.Pod) fields.Set {
	address := ""
	if len(p.Status.PodIPs) > 0 {
		address = p.Status.PodIPs[0].IP
	}
	return fields.Set{
		"spec.nodeName":            p.Spec.NodeName,
		"spec.restartPolicy":       string(p.Spec.RestartPolicy),
		"spec.schedulerName":       p.Spec.SchedulerName,
		"spec.serviceAccountName":  p.Spec.ServiceAccountName,
		"spec.hostNetwork":         strconv.FormatBool(p.Spec.HostNetwork),
		"status.phase":             string(p.Status.Phase),
		"status.podIP":             address,
		"status.nominatedNodeName": p.Status.NominatedNodeName,
	}
}

// addNodesAndPods adds nodes, and pods, whose streams go through the nodes' agents.
func addNodesAndPods(deps *registry.Dependencies, storages registry.Storages) error {
	if err := addParameters(deps.Scheme.Scheme); err != nil {
		return err
	}
	nodes, own, err := registry.Build(deps, nodeKind())
	if err != nil {
		return err
	}
	storages.Add(own)
	reach, transport := newAgents(deps.Agents, nodes), proxyTransport()
	storages["nodes/proxy"] = nodeProxy(reach, transport)

	pods, own, err := registry.Build(deps, podKind())
	if err != nil {
		return err
	}
	pods.ReturnDeletedObject = true
	storages.Add(own)
	bindings := &podBinding{store: pods.Store}
	streams := &podStreams{pods: pods, agents: reach, authorize: whenAsked{deps}}
	storages.Add(registry.Storages{
		"bindings":                 &legacyBinding{bindings},
		"pods/binding":             bindings,
		"pods/eviction":            &podEviction{pods: pods, status: own["pods/status"].(*registry.Subresource)},
		"pods/ephemeralcontainers": newPodPart(pods.Store, podspec.PrepareForEphemeralContainersUpdate, podspec.ValidateEphemeralContainersUpdate),
		"pods/resize":              newPodPart(pods.Store, podspec.PrepareForResize, podspec.ValidateResize),
		"pods/log":                 &podLog{streams},
		"pods/exec":                streams.exec(),
		"pods/attach":              streams.attach(),
		"pods/portforward":         streams.portForward(),
		"pods/proxy":               podProxy(pods, transport),
	})
	return nil
}
