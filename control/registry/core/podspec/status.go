package podspec

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// ValidatePodStatusUpdate checks what an agent or controller reports about a pod.
func ValidatePodStatusUpdate(updated, old *corev1.Pod) field.ErrorList {
	v := newPodValidator(updated)
	v.add(ValidateObjectMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta)...)
	v.annotationUpdates(updated.Annotations, old.Annotations, field.NewPath("metadata", "annotations"))

	path, status := field.NewPath("status"), &updated.Status
	v.conditions(status.Conditions, path.Child("conditions"))
	if updated.Spec.NodeName != old.Spec.NodeName {
		v.forbidden(path.Child("nodeName"), "may not be changed directly")
	}
	v.nomination(updated, old, path.Child("nominatedNodeName"))
	if status.ObservedGeneration < 0 {
		v.invalid(path.Child("observedGeneration"), status.ObservedGeneration, "must be a non-negative integer")
	}
	v.add(apivalidation.ValidateImmutableField(status.QOSClass, old.Status.QOSClass, path.Child("qosClass"))...)

	v.transitions(updated, old, path)
	v.claimStatuses(status.ResourceClaimStatuses, path.Child("resourceClaimStatuses"))
	v.extendedClaimStatus(status.ExtendedResourceClaimStatus, path.Child("extendedResourceClaimStatus"))
	v.podIPs(updated, old, path.Child("podIPs"))
	v.hostIPs(updated, old, path.Child("hostIPs"))
	v.statusUsers(status.ContainerStatuses, path.Child("containerStatuses"))
	v.statusUsers(status.InitContainerStatuses, path.Child("initContainerStatuses"))
	v.statusUsers(status.EphemeralContainerStatuses, path.Child("ephemeralContainerStatuses"))
	v.allocations(status, status.ContainerStatuses, updated.Spec.Containers, path.Child("containerStatuses"))
	v.allocations(status, status.InitContainerStatuses, updated.Spec.InitContainers, path.Child("initContainerStatuses"))
	for i := range status.EphemeralContainerStatuses {
		if len(status.EphemeralContainerStatuses[i].AllocatedResourcesStatus) > 0 {
			v.forbidden(path.Child("ephemeralContainerStatuses").Index(i).Child("allocatedResourcesStatus"), "must not be specified in container status")
		}
	}
	return v.list
}

func (v *validator) conditions(conditions []corev1.PodCondition, path *field.Path) {
	for i, condition := range conditions {
		if condition.ObservedGeneration < 0 {
			v.invalid(path.Index(i).Child("observedGeneration"), condition.ObservedGeneration, "must be a non-negative integer")
		}
		switch condition.Type {
		case corev1.PodScheduled, corev1.PodReady, corev1.PodInitialized:
		default:
			v.qualifiedName(string(condition.Type), path.Index(i).Child("Type"))
		}
	}
}

// nomination: a node is nominated for a pod that waits, not for one that has a node.
func (v *validator) nomination(updated, old *corev1.Pod, path *field.Path) {
	name := updated.Status.NominatedNodeName
	if name == "" || name == old.Status.NominatedNodeName {
		return
	}
	v.invalidEach(path, name, apivalidation.NameIsDNSSubdomain(name, false))
	if old.Spec.NodeName != "" {
		v.forbidden(path, "may not be set on pods that are already bound to a node")
	}
}

// transitions: a container that ended and will not be started again stays ended.
func (v *validator) transitions(updated, old *corev1.Pod, path *field.Path) {
	if !anyRestartsAll(&old.Spec) {
		v.staysEnded(updated.Status.ContainerStatuses, old.Status.ContainerStatuses,
			restartable(&old.Spec, old.Spec.Containers), path.Child("containerStatuses"))
		v.staysEnded(updated.Status.InitContainerStatuses, old.Status.InitContainerStatuses,
			restartable(&old.Spec, old.Spec.InitContainers), path.Child("initContainerStatuses"))
	}
	never := func(string, int32) bool { return false }
	v.staysEnded(updated.Status.EphemeralContainerStatuses, old.Status.EphemeralContainerStatuses,
		never, path.Child("ephemeralContainerStatuses"))
}

func restartable(spec *corev1.PodSpec, list []corev1.Container) func(string, int32) bool {
	return func(name string, exitCode int32) bool {
		for i := range list {
			if list[i].Name == name {
				return ShouldRestart(spec, &list[i], exitCode)
			}
		}
		return false
	}
}

func (v *validator) staysEnded(updated, old []corev1.ContainerStatus, mayRestart func(string, int32) bool, path *field.Path) {
	for i, was := range old {
		if was.State.Terminated == nil {
			continue
		}
		for _, is := range updated {
			if is.Name != was.Name || is.State.Terminated != nil {
				continue
			}
			if !mayRestart(was.Name, was.State.Terminated.ExitCode) {
				v.forbidden(path.Index(i).Child("state"), "may not be transitioned to non-terminated state")
			}
			break
		}
	}
}

func (v *validator) podIPs(updated, old *corev1.Pod, path *field.Path) {
	var before, addresses []string
	for _, ip := range old.Status.PodIPs {
		before = append(before, ip.IP)
	}
	for _, ip := range updated.Status.PodIPs {
		addresses = append(addresses, ip.IP)
	}
	v.addresses(addresses, before, path, updated.Status.PodIPs)
	switch {
	case (updated.Status.PodIP != "") != (len(addresses) > 0):
		v.invalid(path, updated.Status.PodIPs, "podIP and podIPs must either both be set or both be unset")
	case len(addresses) > 0 && updated.Status.PodIP != addresses[0]:
		v.invalid(path.Index(0).Child("ip"), addresses[0], "must be equal to `podIP`")
	}
}

func (v *validator) hostIPs(updated, old *corev1.Pod, path *field.Path) {
	var before, addresses []string
	for _, ip := range old.Status.HostIPs {
		before = append(before, ip.IP)
	}
	for _, ip := range updated.Status.HostIPs {
		addresses = append(addresses, ip.IP)
	}
	if len(addresses) > 0 && updated.Status.HostIP != addresses[0] {
		v.invalid(path.Index(0).Child("ip"), addresses[0], "must be equal to `hostIP`")
	}
	v.addresses(addresses, before, path, updated.Status.HostIPs)
}

// addresses checks the form of new addresses and that there is at most one of each family.
func (v *validator) addresses(list, before []string, path *field.Path, value any) {
	for i, address := range list {
		v.add(validation.IsValidIPForLegacyField(path.Index(i), address, strictAddresses, before)...)
	}
	if len(list) < 2 {
		return
	}
	dual, err := netutils.IsDualStackIPStrings(list)
	if err != nil {
		v.add(field.InternalError(path, fmt.Errorf("failed to check for dual stack with error:%v", err)))
	}
	if !dual || len(list) > 2 {
		v.invalid(path, value, "may specify no more than one IP for each IP family")
	}
}

func (v *validator) claimStatuses(statuses []corev1.PodResourceClaimStatus, path *field.Path) {
	claims, seen := sets.New[string](), sets.New[string]()
	for _, claim := range v.spec.ResourceClaims {
		claims.Insert(claim.Name)
	}
	for i, status := range statuses {
		at := path.Index(i)
		if !claims.Has(status.Name) {
			v.invalid(at.Child("name"), status.Name, "must match the name of an entry in `spec.resourceClaims`")
		}
		if seen.Has(status.Name) {
			v.duplicate(at.Child("name"), status.Name)
		}
		seen.Insert(status.Name)
		if name := status.ResourceClaimName; name != nil {
			v.invalidEach(at.Child("resourceClaimName"), name, apivalidation.NameIsDNSSubdomain(*name, false))
		}
	}
}

// extendedClaimStatus checks the claim that was made for resources requested by extended names.
func (v *validator) extendedClaimStatus(status *corev1.PodExtendedResourceClaimStatus, path *field.Path) {
	if status == nil {
		return
	}
	requests := map[string]corev1.ResourceList{}
	for _, list := range [][]corev1.Container{v.spec.InitContainers, v.spec.Containers} {
		for i := range list {
			requests[list[i].Name] = list[i].Resources.Requests
		}
	}
	mappings := path.Child("requestMappings")
	if len(status.RequestMappings) == 0 {
		v.required(mappings, "at least one request mapping is required")
	}
	seen := sets.New[corev1.ContainerExtendedResourceRequest]()
	for i, mapping := range status.RequestMappings {
		at := mappings.Index(i)
		if requested, found := requests[mapping.ContainerName]; !found {
			v.invalid(at.Child("containerName"), mapping.ContainerName, "must match the name of an entry in spec.initContainers.name or spec.containers.name")
		} else if !has(requested, corev1.ResourceName(mapping.ResourceName)) {
			v.invalid(at.Child("resourceName"), mapping.ResourceName, "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests")
		}
		v.dnsLabel(mapping.RequestName, path.Child("requestName"))
		if seen.Has(mapping) {
			v.duplicate(at.Child("containerName"), mapping.ContainerName)
			v.duplicate(at.Child("resourceName"), mapping.ResourceName)
			v.duplicate(at.Child("requestName"), mapping.RequestName)
		}
		seen.Insert(mapping)
	}
	if status.ResourceClaimName == "" {
		v.required(path.Child("resourceClaimName"), "")
	} else {
		v.dnsSubdomain(status.ResourceClaimName, path.Child("resourceClaimName"))
	}
}
