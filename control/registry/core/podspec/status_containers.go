package podspec

import (
	"fmt"
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// claimPrefix marks the name of an allocated resource that is a claim to devices.
const claimPrefix = "claim:"

// statusUsers checks the users which containers were found to run as. User ids may be larger than
// those a pod can ask for: images bring their own.
func (v *validator) statusUsers(statuses []corev1.ContainerStatus, path *field.Path) {
	system := corev1.Linux
	if v.spec.OS != nil {
		system = v.spec.OS.Name
	}
	for i := range statuses {
		if statuses[i].User == nil || statuses[i].User.Linux == nil {
			continue
		}
		user, at := statuses[i].User.Linux, path.Index(i).Child("user", "linux")
		switch system {
		case corev1.Windows:
			v.forbidden(at, "cannot be set for a windows pod")
		case corev1.Linux:
			if user.UID < 0 || user.UID > math.MaxUint32 {
				v.invalid(at.Child("uid"), user.UID, fmt.Sprintf("must be between 0 and %d, inclusive", int64(math.MaxUint32)))
			}
			v.group(&user.GID, at.Child("gid"))
			for g := range user.SupplementalGroups {
				v.group(&user.SupplementalGroups[g], at.Child("supplementalGroups").Index(g))
			}
		}
	}
}

// allocations checks the health of devices that were given to containers. Statuses of containers
// which the spec does not name are left alone.
func (v *validator) allocations(status *corev1.PodStatus, statuses []corev1.ContainerStatus, specs []corev1.Container, path *field.Path) {
	for i := range statuses {
		var spec *corev1.Container
		for j := range specs {
			if specs[j].Name == statuses[i].Name {
				spec = &specs[j]
				break
			}
		}
		for j, allocated := range statuses[i].AllocatedResourcesStatus {
			at := path.Index(i).Child("allocatedResourcesStatus").Index(j)
			if spec != nil {
				v.allocatedName(status, spec, allocated.Name, at.Child("name"))
			}
			v.deviceHealth(allocated.Resources, at.Child("resources"))
		}
	}
}

func (v *validator) allocatedName(status *corev1.PodStatus, c *corev1.Container, name corev1.ResourceName, path *field.Path) {
	reference, isClaim := strings.CutPrefix(string(name), claimPrefix)
	if !isClaim {
		if !has(c.Resources.Requests, name) {
			v.invalid(path, name, "must match one of the container's resource requests")
		}
		return
	}
	for _, claim := range c.Resources.Claims {
		own := claim.Name
		if claim.Request != "" {
			own += "/" + claim.Request
		}
		if own == reference {
			return
		}
	}
	if extendedClaimServes(status.ExtendedResourceClaimStatus, c, reference) {
		return
	}
	v.invalid(path, name, "must match one of the container's resource claims as 'claim:<claimName>/<requestName>' when container.resources.claims[*].request is set or 'claim:<claimName>' when it is empty")
}

// extendedClaimServes tells whether the reference is to a request of the claim that was made for
// the extended resources of this container.
func extendedClaimServes(status *corev1.PodExtendedResourceClaimStatus, c *corev1.Container, reference string) bool {
	claim, request, _ := strings.Cut(reference, "/")
	if status == nil || claim == "" || request == "" || claim != status.ResourceClaimName {
		return false
	}
	for _, mapping := range status.RequestMappings {
		amount := c.Resources.Requests[corev1.ResourceName(mapping.ResourceName)]
		if mapping.ContainerName == c.Name && mapping.RequestName == request && !amount.IsZero() {
			return true
		}
	}
	return false
}

func (v *validator) deviceHealth(devices []corev1.ResourceHealth, path *field.Path) {
	seen := sets.New[corev1.ResourceID]()
	for i, device := range devices {
		at := path.Index(i)
		oneOf(&v.findings, at.Child("health"), device.Health, corev1.ResourceHealthStatusHealthy,
			corev1.ResourceHealthStatusUnhealthy, corev1.ResourceHealthStatusUnknown)
		if message := device.Message; message != nil {
			if *message == "" {
				v.required(at.Child("message"), "must be non-empty if specified")
			} else if len(*message) > corev1.ResourceHealthMessageMaxLength {
				v.tooLong(at.Child("message"), corev1.ResourceHealthMessageMaxLength)
			}
		}
		if seen.Has(device.ResourceID) {
			v.duplicate(at.Child("resourceID"), device.ResourceID)
		}
		seen.Insert(device.ResourceID)
	}
}
